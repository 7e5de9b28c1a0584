"""Study specification: search space, objectives, sampler, pruner and limits of a study.

A specification is plain data. It travels inside `study_submitted` and is checked completely when
it is built, so every service that receives a specification can rely on it. `trialbus` does not know
which samplers and pruners exist; the optimizer checks their names and arguments.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import msgspec

from trialbus.study.conditions import find_unmet_condition, order_by_conditions
from trialbus.study.nested_config import Params, flatten_config, merge_configs
from trialbus.study.retries import FailureCause
from trialbus.study.search_space import CategoricalParam, Choice, Param, make_fixed_param
from trialbus.study.spec_limits import (
    MAX_SEED,
    check_arguments,
    check_config_size,
    check_count,
    check_define_by_run,
    check_metric_name,
    check_override,
    check_param_name,
    check_params_size,
    check_seed,
    check_spec_size,
    check_study_name,
)
from trialbus.study.validation import format_expected
from trialbus.study.values import check_value

Direction: TypeAlias = Literal["minimize", "maximize"]
NanPolicy: TypeAlias = Literal["fail", "prune", "ignore", "worst"]
DuplicatePolicy: TypeAlias = Literal["allow", "skip", "reuse"]

#: Fields that a written study has under other keys (`objective`, beside `study`), or not at all.
NOT_WRITTEN = frozenset({"objectives", "sampler", "pruner", "inherited"})

# Fields of a study that are counts: name, lowest value, and what the error message expects.
_COUNTS = (
    ("n_trials", 1, "the total number of trials"),
    ("budget", 1, "a number of steps, or null"),
    ("max_retries", 0, "a number of retries"),
    ("max_failures", 1, "a number of trials, or null"),
    ("early_stop_patience", 1, "a number of trials, or null"),
)


class Objective(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An objective: a metric, a direction, and the value to take from a trial's evaluations."""

    metric: str
    """Name of the metric as the trainer reports it, for example `val/accuracy`."""

    direction: Direction = "maximize"
    """Whether higher values (`maximize`) or lower values (`minimize`) are better."""

    aggregate: str = "last"
    """Value of the curve that counts: `last`, `best`, `mean_last(k)`, `ema(alpha)`, `at_step(n)`.

    `mean_last(k)` is the mean of the last k values, `ema(alpha)` an exponential moving average
    in which `alpha` weighs the newest value.
    """

    def __post_init__(self) -> None:
        if not self.metric:
            raise ValueError("metric is empty (expected the name of a metric the trainer reports)")
        check_metric_name("metric", self.metric)


class PruneBy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The metric that the pruner judges, and the direction of the metric."""

    metric: str
    """Name of the metric as the trainer reports it."""

    direction: Direction | None = None
    """Which values are better; None takes the direction of the objective with this metric."""


class Evaluation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How often and how long a training evaluates the model."""

    interval: int | None = None
    """Steps (epochs, updates) between two evaluations; None leaves it to the training."""

    episodes: int | None = None
    """Episodes, or batches, of one evaluation; None leaves it to the training."""

    def __post_init__(self) -> None:
        for name in ("interval", "episodes"):
            count = getattr(self, name)
            check_count(name, count, 1, "1 or more, or null")


class Inherited(msgspec.Struct, frozen=True, kw_only=True):
    """The best trial of an earlier phase, from which values of `fixed` come."""

    phase: str
    """Name of the earlier phase."""

    study: str
    """Study of that phase."""

    trial: int
    """Number of that study's best trial."""

    values: list[float]
    """Objective values of that trial."""

    params: dict[str, Any]
    """Value of each param of that trial, also those that this study searches again."""


class Component(msgspec.Struct, frozen=True, kw_only=True):
    """The class of a sampler or pruner, and the arguments of the class."""

    type: str
    """Name of a class of Optuna, or the import path of a user's class: `package.module.Class`.

    The optimizer imports a user's class only if its operator allows the module.
    """

    args: dict[str, Any] = {}
    """Arguments of the class by name."""


class StudySpec(msgspec.Struct, frozen=True, kw_only=True):
    """The complete specification of a study."""

    name: str
    """Name of the study on the bus and in the Optuna storage, of at most 200 characters, where
    `/`, `*` and `%` count as three each.
    """

    params: dict[str, Param]
    """Search space by param name; names may be dotted (`optimizer.lr`).

    A param with a condition (`when`) is only in the trials that meet the condition.
    """

    objectives: tuple[Objective, ...]
    """Objectives, each with a metric and a direction; several make the study multi-objective."""

    n_trials: int
    """Total number of trials in the study, over all workers, restarts and submissions."""

    budget: int | None = None
    """Steps that one trial may train, its `trial.budget`; None leaves them to the trainer."""

    timeout_s: float | None = None
    """Seconds after which no trial is handed out any more; None for no limit.

    The time begins with the first trial that is handed out after the submission.
    """

    timeout_grace_s: float | None = None
    """Seconds after `timeout_s` at which running trials are pruned; None lets them finish."""

    trial_timeout_s: float | None = None
    """Seconds after which an attempt at a trial is ended as `timed_out`; None for no limit."""

    silence_s: float | None = None
    """Seconds without a report after which an attempt is ended as `silent`; None for no limit."""

    sampler: Component = Component(type="TPESampler")
    """The Optuna sampler."""

    pruner: Component | None = None
    """The Optuna pruner; None prunes nothing."""

    prune_by: PruneBy | None = None
    """Metric that the pruner judges; None takes the only objective of the study."""

    fixed: dict[str, Any] = {}
    """Params with the same value in every trial; Optuna sees each as a param with one choice."""

    enqueue: tuple[dict[str, Any], ...] = ()
    """Params of trials to run first; the sampler suggests the params that are left out.

    A labelled choice is named by its label or its value.

    Entries equal to a trial that the study already has are skipped.
    """

    duplicates: DuplicatePolicy | None = None
    """What a suggestion is worth whose params an earlier trial had.

    `allow`: the trial runs. `skip`: the sampler is asked for another; a finite search space whose
    points are all taken ends the study. `reuse`: the value of the earlier complete trial is
    recorded, and nothing runs. None is `skip` for the samplers `GridSampler` and
    `BruteForceSampler`, and where every param has choices, and `allow` elsewhere.
    """

    constraints: tuple[str, ...] = ()
    """Conditions on the metrics last reported by a trial, or on params, such as `size <= 1e6`.

    A name that is not a plain word stands in braces: `{val/latency} + {val/load} <= 50`. A trial
    that violates a constraint on metrics is complete, and never the best. With a constraint over
    params alone no trial is handed out that violates the constraint.
    """

    nan: NanPolicy = "fail"
    """What happens to a trial whose objective is NaN or infinite.

    `fail`: the trial fails at its end. `prune`: the trial is pruned at once. `ignore`: such
    reports do not count. `worst`: at its end the trial gets the worst value of the complete
    trials, and fails if no trial is complete.
    """

    target: float | None = None
    """Value of the only objective that ends the study as `converged`; None for no target."""

    early_stop_patience: int | None = None
    """Trials in a row without progress that end the study as `converged`; None for no limit.

    Failed trials do not count.
    """

    early_stop_min_delta: float = 0.0
    """Improvement on the best value of an objective that must be exceeded to count as progress."""

    seed: int = 0
    """Seed of the study, from 0 to 2**32 - 1; trial n gets `seed + n`, modulo 2**32."""

    max_retries: int = 3
    """How often a trial is handed out again whose training was lost or killed."""

    retries: dict[FailureCause, int] = {}
    """How often a trial is handed out again, by the cause that ended its attempts.

    A cause that is not named gets `max_retries` if it is `lost` or `killed`, and 0 if it is
    `exception`, `out_of_memory`, `timed_out` or `silent`. Attempts that were `preempted` are free,
    but at most 10 in a row, or the number given here, may end without a new step.
    """

    max_failures: int | None = 5
    """Failed trials in a row that end the study as failed; None for no limit."""

    catch_exceptions: bool = True
    """Whether the study continues after a failed trial.

    Otherwise the first failed trial since the submission ends the study as failed; running trials
    finish.
    """

    define_by_run: bool = False
    """Whether the training is an objective function of Optuna that asks for its params itself.

    The study then declares no `params`, and records what each trial asks for. The function of
    `trainer.function` is called with an `optuna.Trial`.
    """

    allow_space_change: bool = False
    """Whether the study may go on with other params than its recorded trials have.

    Otherwise params that are new, renamed or left out are refused, since the old trials would be
    mixed with the new ones. Ranges may change.
    """

    on_missing_metric: Literal["stop", "fail"] = "stop"
    """What happens after a trial that should be complete and never reported an objective's metric.

    `stop`: if no trial of the study ever reported the metric, the study ends as failed, so that no
    further trial is wasted; running trials finish. `fail`: only the trial fails.
    """

    evaluation: Evaluation = Evaluation()
    """How a training is to evaluate, `trial.evaluation` in the trainer."""

    base_config: dict[str, Any] | str | None = None
    """Configuration that every trial begins with: a mapping, or the name of a configuration.

    A name stands for a configuration that the training composes itself (`trial.config_name`, with
    Hydra `--config-name`). `trialbus study` also accepts a YAML file, which becomes a mapping.
    """

    trial_overrides: dict[str, Any] = {}
    """Values that override `base_config` in every trial, nested or by dotted names.

    Params override both; `trial.config` is the result.
    """

    inherited: Inherited | None = None
    """Where values of `fixed` come from, if an earlier phase gave them; None otherwise."""

    def __post_init__(self) -> None:
        check_study_name(self.name)
        if not self.objectives:
            raise ValueError("objective is missing (expected at least one)")
        self._check_limits()
        if self.target is not None and len(self.objectives) > 1:
            raise ValueError(
                f"target {self.target:g} needs one objective (there are {len(self.objectives)}; "
                "use early_stop_patience)"
            )
        if not self.early_stop_min_delta >= 0:
            raise ValueError(f"early_stop_min_delta {self.early_stop_min_delta:g} is below 0")
        self._check_pruning()
        check_define_by_run(self)
        self._check_fixed()
        order_by_conditions(self._get_all_params())
        self._check_enqueued()
        self._check_config()
        check_arguments("sampler", self.sampler.args)
        check_arguments("pruner", {} if self.pruner is None else self.pruner.args)
        check_params_size(
            {f"params.{name}": param for name, param in self.params.items()}
            | {f"fixed.{name}": make_fixed_param(value) for name, value in self.fixed.items()}
        )
        check_spec_size(self)

    def check_params(self, params: Mapping[str, Any], key: str = "params") -> None:
        """Check that params are in the search space; params may be left out.

        Args:
            params: Value of each param by name.
            key: Key of the params in the study, for the error.

        Raises:
            ValueError: A param or a value is outside of the search space; the message begins with
                `key.name`.
        """
        if self.define_by_run:  # which params a trial has is known when it runs
            return
        given = self.encode_params({k: v for k, v in params.items() if self._has_value(k, v)})
        for name, value in params.items():
            if name not in self.params:
                raise ValueError(f"{key}.{name} is not a param{format_expected(name, self.params)}")
            if not self.params[name].contains(value):
                raise ValueError(f"{key}.{name} {value!r} is outside of {self.params[name]}")
            unmet = find_unmet_condition(
                self.params[name], {**self.encode_params(self.fixed), **given}
            )
            if unmet is not None:
                raise ValueError(
                    f"{key}.{name} {value!r} would not be in the trial: "
                    f"params.{name}.when needs {unmet} (expected {unmet} in {key}, too)"
                )

    def encode_params(self, params: Mapping[str, Any]) -> dict[str, Choice]:
        """Return what the Optuna storage keeps of params: labels in place of labelled values.

        Raises:
            ValueError: A value is not among the choices of its param.
        """
        space = self._get_all_params()
        return {
            name: space[name].encode(value) if name in space else value
            for name, value in params.items()
        }

    def decode_params(self, stored: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values that a training gets for the params of a trial in the storage."""
        space = self._get_all_params()
        return {
            name: space[name].decode(value) if name in space else value
            for name, value in stored.items()
        }

    def find_labels(self, stored: Mapping[str, Any]) -> dict[str, str]:
        """Return the label of each param of a trial in the storage whose choices are labelled."""
        space = self._get_all_params()
        return {
            name: value
            for name, value in stored.items()
            if isinstance(param := space.get(name), CategoricalParam) and param.is_labelled
        }

    def _has_value(self, name: str, value: Any) -> bool:
        return name in self.params and self.params[name].contains(value)

    def _check_limits(self) -> None:
        for name, least, expected in _COUNTS:
            check_count(name, getattr(self, name), least, expected)
        for cause, count in self.retries.items():
            check_count(f"retries.{cause}", count, 0, "a number of retries")
        check_seed("seed", self.seed)
        if self.target is not None and math.isnan(self.target):
            raise ValueError("target nan is no value (expected a number, or null)")
        for name in ("timeout_s", "trial_timeout_s", "silence_s"):
            seconds = getattr(self, name)
            if seconds is not None and not seconds > 0:
                raise ValueError(
                    f"{name} {seconds:g} is not above zero (expected seconds, or null)"
                )
        if self.timeout_grace_s is not None and not self.timeout_grace_s >= 0:
            raise ValueError(
                f"timeout_grace_s {self.timeout_grace_s:g} is below 0 (expected seconds, or null)"
            )
        if self.timeout_grace_s is not None and self.timeout_s is None:
            raise ValueError(
                f"timeout_grace_s {self.timeout_grace_s:g} needs timeout_s (expected seconds)"
            )

    def make_seed(self, offset: int) -> int:
        """Return the seed of trial number `offset`, or another that follows from the study's."""
        return (self.seed + offset) % (MAX_SEED + 1)

    def _check_pruning(self) -> None:
        if self.pruner is None or self.pruner.type == "NopPruner":
            return
        if self.prune_by is None and len(self.objectives) > 1:
            metrics = ", ".join(self.metrics)
            raise ValueError(
                f"prune_by is missing: a pruner judges one metric of several objectives "
                f"(expected {{metric: <one of {metrics}>}}, or pruner=none)"
            )
        by = self.prune_by
        if by and by.direction is None and by.metric not in self.metrics:
            raise ValueError(
                f"prune_by.direction is missing: {by.metric!r} is not an objective "
                "(expected minimize or maximize)"
            )

    def _check_fixed(self) -> None:
        for name, value in self.fixed.items():
            if name in self.params:
                raise ValueError(f"fixed.{name} {value!r} is searched too, by params.{name}")
            check_param_name("fixed", name)
            check_value(f"fixed.{name}", value)
        for name in self.params:
            check_param_name("params", name)

    def _check_enqueued(self) -> None:
        for i, params in enumerate(self.enqueue):
            self.check_params(params, f"enqueue[{i}]")

    def _check_config(self) -> None:
        if isinstance(self.base_config, str) and not self.base_config.strip():
            raise ValueError("base_config is empty (expected a mapping, a name or null)")
        base = {} if isinstance(self.base_config, str) else self.base_config or {}
        for name, config in (("base_config", base), ("trial_overrides", self.trial_overrides)):
            try:
                names = flatten_config(config)
            except ValueError as error:
                raise ValueError(f"{name}.{error}") from None
            for value_name in names:
                check_override(f"{name} has a value whose name", value_name)
        check_config_size(self.config)

    @property
    def config(self) -> dict[str, Any]:
        """Nested configuration of all trials: `trial_overrides` merged into `base_config`."""
        base = self.base_config if isinstance(self.base_config, dict) else {}
        return Params(
            merge_configs(flatten_config(base), flatten_config(self.trial_overrides))
        ).nested()

    @property
    def config_name(self) -> str | None:
        """Name of a configuration in `base_config`; None if `base_config` is a mapping or None."""
        return self.base_config if isinstance(self.base_config, str) else None

    @property
    def space(self) -> dict[str, Param]:
        """All params by name, fixed params included, sorted by `order_by_conditions`."""
        return order_by_conditions(self._get_all_params())

    def _get_all_params(self) -> dict[str, Param]:
        return self.params | {name: make_fixed_param(value) for name, value in self.fixed.items()}

    @property
    def pruned_by(self) -> Objective | None:
        """Metric and direction that the pruner judges; None if the study has no pruner."""
        if self.pruner is None:
            return None
        if self.prune_by is None:
            return self.objectives[0]
        directions = dict(zip(self.metrics, self.directions, strict=True))
        direction = self.prune_by.direction or directions[self.prune_by.metric]
        return Objective(metric=self.prune_by.metric, direction=direction)

    @property
    def directions(self) -> list[Direction]:
        """The direction of each objective."""
        return [objective.direction for objective in self.objectives]

    @property
    def metrics(self) -> list[str]:
        """The metric of each objective."""
        return [objective.metric for objective in self.objectives]
