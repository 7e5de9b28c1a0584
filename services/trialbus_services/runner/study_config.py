"""A study of a spec file, and the table of the keys that such a file has for a study's fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from trialbus.errors import SpecError
from trialbus.study.nested_config import Params, flatten_config, merge_configs
from trialbus.study.spec import Direction, StudySpec
from trialbus.study.spec_loading import load_spec
from trialbus_services.config.base_config import read_base_config
from trialbus_services.config.search_space import expand_list

#: Keys of a spec file, and the field of a study (by its dotted name) that each one gives.
_FIELDS: Mapping[str, str] = {
    "study_name": "name",
    "parameters": "params",
    "metric_name": "objective.metric",
    "direction": "objective.direction",
    "use_best_value": "objective.aggregate",
    "n_trials": "n_trials",
    "timeout": "timeout_s",
    "episodes_per_trial": "budget",
    "evaluation_interval": "evaluation.interval",
    "eval_frequency": "evaluation.interval",
    "evaluation_episodes": "evaluation.episodes",
    "eval_episodes": "evaluation.episodes",
    "base_config": "base_config",
    "trial_overrides": "trial_overrides",
    "catch_exceptions": "catch_exceptions",
    "early_stop_patience": "early_stop_patience",
    "early_stop_min_delta": "early_stop_min_delta",
    "seed": "seed",
}


class StudyConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A study of a spec file."""

    study_name: str
    """Name of the study, on the bus and in the storage."""

    parameters: list[Any]
    """Search space: a list of `{name, type, low, high, choices, step, log, when}`."""

    direction: Direction = "maximize"
    """Whether higher or lower values of `metric_name` are better."""

    metric_name: str = "mean_reward"
    """Metric that is the objective, as the trainer reports it."""

    storage: str = "sqlite:///optuna_studies.db"
    """URL of the Optuna storage."""

    load_if_exists: bool = True
    """Whether a study of this name in the storage is continued; false refuses to run."""

    sampler: dict[str, Any] = msgspec.field(default_factory=lambda: {"type": "TPESampler"})
    """`{type: <class of Optuna>, <argument>: <value>}`. An argument that is null is left to the
    class; one that Optuna has deprecated is taken, with Optuna's warning."""

    pruner: dict[str, Any] | None = None
    """The same for the pruner; None prunes nothing."""

    n_trials: int = 100
    """Total number of trials, over all runs."""

    timeout: float | None = None
    """Seconds after which no further trial begins; None for no limit."""

    n_jobs: int | None = None
    """Trials that run at the same time, at most `max_concurrent_trials`; None and -1 take that."""

    catch_exceptions: bool = True
    """Whether the study continues after a failed trial."""

    base_config: dict[str, Any] | str | None = None
    """Configuration that every trial begins with: a mapping, or the path of a YAML file relative
    to the spec file, or a name that the training composes itself."""

    training_config: dict[str, Any] = {}
    """Values that replace those of `base_config`, by nested or dotted names."""

    trial_overrides: dict[str, Any] = {}
    """Values that replace those of `training_config`, by nested or dotted names."""

    episodes_per_trial: int | None = None
    """Steps of one trial in the unit of the trainer, handed to it as `trial.budget`."""

    evaluation_interval: int | None = None
    """Updates between two evaluations, handed to the trainer as `trial.evaluation.interval`."""

    evaluation_episodes: int | None = None
    """Episodes of one evaluation, handed to the trainer as `trial.evaluation.episodes`."""

    eval_frequency: int | None = None
    """Another name of `evaluation_interval`."""

    eval_episodes: int | None = None
    """Another name of `evaluation_episodes`."""

    report_interval: int = 1
    """Every how many evaluations one is reported. It reaches the training as
    `trial.config["callbacks"]`, which `CallbackFactory` takes."""

    use_best_value: bool = False
    """Whether the best value of a trial counts; false counts the last one."""

    early_stop_patience: int | None = None
    """Trials in a row without progress that end the study; None for no limit."""

    early_stop_min_delta: float = 0.0
    """Least improvement over the best value that counts as progress."""

    save_checkpoints: bool = True
    """Whether checkpoints are kept when the study has ended."""

    keep_best_n: int | None = None
    """Number of trials, the best ones, whose checkpoints are kept; None for all."""

    seed: int = 0
    """Seed of the study, and of the sampler unless that has one."""

    def __post_init__(self) -> None:
        if self.n_jobs is not None and self.n_jobs != -1 and self.n_jobs < 1:
            raise ValueError(
                f"n_jobs {self.n_jobs} is below 1 (expected a number of trials, or -1)"
            )
        for name in ("report_interval", "keep_best_n"):
            count = getattr(self, name)
            if count is not None and count < 1:
                raise ValueError(f"{name} {count} is below 1 (expected 1 or more)")

    def spec(self) -> StudySpec:
        """Return the specification of the study for the bus.

        Raises:
            SpecError: A value cannot be used; its key is the one of the spec file.
        """
        try:
            return load_spec(
                Params(self._collect_fields()).nested(),
                sampler=_drop_nulls(self.sampler),
                pruner=_drop_nulls(self.pruner),
            )
        except SpecError as error:
            raise _rename_key(error) from None

    def _collect_fields(self) -> dict[str, Any]:
        """Return the fields of the study by dotted name."""
        values = msgspec.structs.asdict(self) | {
            "parameters": expand_list(self.parameters, "study.params"),
            "use_best_value": "best" if self.use_best_value else "last",
            "base_config": read_base_config(self.base_config),
            "trial_overrides": self._merge_configs(),
        }
        fields: dict[str, Any] = {}
        for key, field in _FIELDS.items():
            value, other = values[key], fields.get(field)
            if None not in (value, other) and value != other:
                raise SpecError(
                    key, f"{value} is not {_find_key(field)} {other} (two names of one field)"
                )
            fields[field] = other if value is None else value
        return fields

    def _merge_configs(self) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        for key in ("training_config", "trial_overrides"):
            try:
                merged = merge_configs(merged, flatten_config(getattr(self, key)))
            except ValueError as error:
                raise SpecError(key, str(error)) from None
        if self.report_interval > 1:
            callback = {"metric_name": self.metric_name, "report_interval": self.report_interval}
            merged = merge_configs(merged, flatten_config({"callbacks": {"optuna": callback}}))
        return merged


def _drop_nulls(component: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return a sampler or pruner without null arguments, which are left to the class."""
    if component is None:
        return None
    arguments = {name: value for name, value in component.items() if value is not None}
    if arguments.get("type") == "PatientPruner":
        arguments.setdefault("wrapped_pruner", None)
    return arguments


def _find_key(field: str) -> str | None:
    """Return the key of a spec file for a field of a study; None for a field without a key."""
    return next((key for key, name in _FIELDS.items() if name == field), None)


def _rename_key(error: SpecError) -> SpecError:
    """Convert an error about a field of a study to an error about the key of the spec file."""
    path = error.key.removeprefix("study").removeprefix(".")
    name, _, problem = error.problem.partition(" ")
    # Errors of a whole section begin with the name of the field in it.
    key = _find_key(f"{path}.{name}".removeprefix("."))
    if key is not None:
        return SpecError(key, problem)
    for key, field in _FIELDS.items():
        if path == field or path.startswith((f"{field}.", f"{field}[")):
            return SpecError(key + path.removeprefix(field), error.problem)
    return SpecError(path, error.problem)
