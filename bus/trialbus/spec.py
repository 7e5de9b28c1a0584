"""What a study is: its search space, objectives, sampler, pruner and bounds.

A specification is plain data. It travels inside `study_submitted` and is checked completely when
it is built, so a service that receives one can rely on it. `trialbus` does not know which
samplers and pruners exist; the optimizer checks their names and arguments.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias, TypeGuard, cast

import msgspec

from trialbus.errors import SpecError

Choice: TypeAlias = bool | int | float | str | None
Direction: TypeAlias = Literal["minimize", "maximize"]


class FloatParam(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    tag_field="type",
    tag="float",
    forbid_unknown_fields=True,
):
    """A real number between `low` and `high`, both included.

    `log` samples its logarithm uniformly and needs `low > 0`; `step` restricts it to
    `low, low + step, ...` and cannot be combined with `log`.

    Source:
        `optuna.distributions.FloatDistribution`.
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None

    def __post_init__(self) -> None:
        _check_range(self.low, self.high, log=self.log)
        if self.step is not None and self.step <= 0:
            raise ValueError(f"step {self.step:g} is not above zero (expected step > 0)")
        if self.step is not None and self.log:
            raise ValueError(
                f"step {self.step:g} cannot be combined with log=true (expected one of the two)"
            )


class IntParam(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    tag_field="type",
    tag="int",
    forbid_unknown_fields=True,
):
    """An integer between `low` and `high`, both included, in steps of `step`.

    Source:
        `optuna.distributions.IntDistribution`.
    """

    low: int
    high: int
    log: bool = False
    step: int = 1

    def __post_init__(self) -> None:
        _check_range(self.low, self.high, log=self.log)
        if self.step <= 0:
            raise ValueError(f"step {self.step} is not above zero (expected step >= 1)")
        if self.step != 1 and self.log:
            raise ValueError(
                f"step {self.step} cannot be combined with log=true (expected one of the two)"
            )


class CategoricalParam(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    tag_field="type",
    tag="categorical",
    forbid_unknown_fields=True,
):
    """One of `choices`, which have no order.

    Source:
        `optuna.distributions.CategoricalDistribution`.
    """

    choices: tuple[Choice, ...]

    def __post_init__(self) -> None:
        if not self.choices:
            raise ValueError("choices is empty (expected at least one)")


Param: TypeAlias = FloatParam | IntParam | CategoricalParam


class Objective(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How one objective value is made from a trial's evaluations.

    Attributes:
        metric: Name of the metric as the trainer reports it, for example `val/accuracy`.
        direction: Whether more or less of it is better.
        aggregate: Which of the values over all steps counts: `last`, `best`, `mean_last(k)` (mean
            of the last k), `ema(alpha)` (exponential moving average, `alpha` weighs the newest)
            or `at_step(n)`.
    """

    metric: str
    direction: Direction = "maximize"
    aggregate: str = "last"

    def __post_init__(self) -> None:
        if not self.metric:
            raise ValueError("metric is empty (expected the name of a metric the trainer reports)")


class Component(msgspec.Struct, frozen=True, kw_only=True):
    """A sampler or pruner: the name of its class and the arguments it is built with."""

    type: str
    args: dict[str, Any] = {}


class StudySpec(msgspec.Struct, frozen=True, kw_only=True):
    """A complete study.

    Attributes:
        name: Name of the study, on the bus and in the Optuna storage.
        params: Search space by parameter name. Names may be dotted (`optimizer.lr`).
        objectives: One for each objective value; several make the study multi-objective.
        n_trials: Total number of trials in the study, over all workers, restarts and submissions.
        budget: Steps one trial may train, handed to the trainer as `trial.budget`; None leaves it
            to the trainer.
        timeout_s: Seconds from submission after which no further trial is handed out; None for
            no limit.
        sampler: The Optuna sampler.
        pruner: The Optuna pruner; None prunes nothing.
        seed: Seed of the study. Trial n gets `seed + n`.
        max_retries: How often a trial whose trainer was lost is handed out again.
        max_failures: Failed trials in a row that end the study as failed; None for no limit.
    """

    name: str
    params: dict[str, Param]
    objectives: tuple[Objective, ...]
    n_trials: int
    budget: int | None = None
    timeout_s: float | None = None
    sampler: Component = Component(type="TPESampler")
    pruner: Component | None = None
    seed: int = 0
    max_retries: int = 3
    max_failures: int | None = 5

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("name is empty (expected the name of the study)")
        if not self.objectives:
            raise ValueError("objective is missing (expected at least one)")
        if self.n_trials < 1:
            raise ValueError(
                f"n_trials {self.n_trials} is below 1 (expected the total number of trials)"
            )
        if self.budget is not None and self.budget < 1:
            raise ValueError(
                f"budget {self.budget} is below 1 (expected a number of steps, or null)"
            )
        if self.timeout_s is not None and self.timeout_s <= 0:
            raise ValueError(
                f"timeout_s {self.timeout_s:g} is not above zero (expected seconds, or null)"
            )
        if self.max_retries < 0:
            raise ValueError(f"max_retries {self.max_retries} is below 0")
        if self.max_failures is not None and self.max_failures < 1:
            raise ValueError(
                f"max_failures {self.max_failures} is below 1 (expected a count, or null)"
            )

    @property
    def directions(self) -> list[Direction]:
        """The direction of each objective."""
        return [objective.direction for objective in self.objectives]

    @property
    def metrics(self) -> list[str]:
        """The metric of each objective."""
        return [objective.metric for objective in self.objectives]


def load_spec(study: Mapping[str, Any], *, sampler: Any, pruner: Any) -> StudySpec:
    """Build a specification from plain mappings, as YAML gives them.

    Args:
        study: The fields of `StudySpec` without sampler and pruner; `params` maps a name to
            `{type: float | int | categorical, ...}`, `objective` is a mapping or a list of them.
        sampler: `{type: <Optuna class>, <argument>: <value>, ...}`.
        pruner: The same, or None.

    Raises:
        SpecError: A key is unknown, missing, of the wrong type or out of range; the message
            names the key and the value.
    """
    data = dict(study)
    known = {"objective", *StudySpec.__struct_fields__} - {"objectives", "sampler", "pruner"}
    for key in data:
        if key not in known:
            raise SpecError(
                f"study.{key}", f"no such key (expected one of {', '.join(sorted(known))})"
            )
    params = data.pop("params", None)
    if not is_mapping(params) or not params:
        raise SpecError(
            "study.params",
            f"{params!r} is not a search space (expected a mapping of at least one param)",
        )
    objective = data.pop("objective", None)
    if not objective or not (is_mapping(objective) or isinstance(objective, list)):
        raise SpecError(
            "study.objective",
            f"{objective!r} is missing (expected a mapping or a list of mappings)",
        )
    objectives = cast(list[Any], [objective] if is_mapping(objective) else objective)
    spec: dict[str, Any] = {
        **data,
        "params": {
            name: _convert(f"study.params.{name}", param, Param) for name, param in params.items()
        },
        "objectives": tuple(
            _convert(
                "study.objective" if len(objectives) == 1 else f"study.objective[{i}]",
                entry,
                Objective,
            )
            for i, entry in enumerate(objectives)
        ),
        "sampler": _component("sampler", sampler),
        "pruner": None if pruner is None else _component("pruner", pruner),
    }
    loaded: StudySpec = _convert("study", spec, StudySpec)
    return loaded


def is_mapping(data: Any) -> TypeGuard[Mapping[str, Any]]:
    """Tell whether `data` is a mapping, as YAML and JSON have them: with text as keys."""
    return isinstance(data, Mapping)


def _component(key: str, data: Any) -> Component:
    if not is_mapping(data) or not isinstance(data.get("type"), str):
        raise SpecError(
            f"{key}.type", f"missing in {data!r} (expected the name of an Optuna class)"
        )
    return Component(type=data["type"], args={k: v for k, v in data.items() if k != "type"})


def _convert(key: str, data: Any, type_: Any) -> Any:
    try:
        return msgspec.convert(data, type_)
    except msgspec.ValidationError as error:
        problem, _, path = str(error).partition(" - at `$")
        inner = path.rstrip("`")
        value = data
        for part in filter(None, inner.split(".")):
            value = value.get(part) if is_mapping(value) else None
        shown = f" (got {value!r})" if inner and value is not None else ""
        raise SpecError(key + inner, f"{problem}{shown}") from None


def _check_range(low: float, high: float, *, log: bool) -> None:
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"low {low:g} and high {high:g} must be finite")
    if low > high:
        raise ValueError(f"low {low:g} is above high {high:g} (expected low <= high)")
    if log and low <= 0:
        raise ValueError(f"low {low:g} is not above zero (expected low > 0 with log=true)")
