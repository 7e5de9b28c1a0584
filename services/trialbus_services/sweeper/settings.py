"""Settings of a sweep: the keys of `hydra.sweeper`, and the study and services that they mean.

Source:
    The keys of hydra-optuna-sweeper 1.3; docs/hydra-sweeper.md says what is equal and what is not.
"""

from __future__ import annotations

import inspect
import secrets
import time
import zlib
from collections.abc import Mapping
from typing import Any, Literal, cast

import msgspec
import optuna
from omegaconf import DictConfig, OmegaConf

from trialbus.errors import SpecError
from trialbus.study.spec import Direction, StudySpec
from trialbus.study.spec_loading import load_spec
from trialbus.study.validation import convert, is_mapping
from trialbus_services.sweeper.search_space import SweepSpace

_KEY = "hydra.sweeper"
_NOT_SETTINGS = ("_target_", "_recursive_", "_convert_", "defaults")
_OPTUNA_SAMPLERS = "optuna.samplers."

#: Arguments of samplers that Optuna removes, with the default of hydra-optuna-sweeper.
_REMOVED_ARGUMENTS: Mapping[str, Any] = {
    "consider_prior": True,
    "prior_weight": 1.0,
    "consider_magic_clip": True,
    "consider_endpoints": False,
    "n_ehvi_candidates": 24,
    "inc_popsize": 2,
}

#: Fields of a study that have a key of their own in `hydra.sweeper`.
_FIELDS: Mapping[str, str] = {
    "name": "study_name",
    "params": "params",
    "objective": "metric and direction",
    "n_trials": "n_trials",
}


class SweepSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The keys of `hydra.sweeper`."""

    sampler: dict[str, Any] | str | None = None
    """Sampler: `{_target_: optuna.samplers.<class>, <argument>: <value>}`, or a name of the group
    `sampler` of `trialbus study`."""
    direction: Direction | list[Direction] = "minimize"
    """Direction of the objective, or of each objective."""
    storage: Any = None
    """URL of the Optuna storage; null is that of `trialbus study`."""
    study_name: str | None = None
    """Name of the study, which goes on where it was; null makes a new study."""
    n_trials: int = 20
    """Number of trials, of what `n_trials_of` says."""
    n_jobs: int = 2
    """Jobs that run at the same time."""
    max_failure_rate: float = 0.0
    """Share of failed trials above which the sweep ends, from 0 to 1."""
    search_space: dict[str, Any] | None = None
    """Search space in the older form: `{x: {type: float, low: 0, high: 1}}`."""
    params: dict[str, Any] | None = None
    """Search space: a sweep of Hydra, or a fixed value, by the key of the override."""
    custom_search_space: str | None = None
    """Function that asks for further params of each trial, `package.module.function`, called
    with the config of the sweep and an `optuna.Trial`."""
    pruner: dict[str, Any] | str | None = None
    """Pruner, in the forms of `sampler`; null prunes nothing."""
    metric: str | list[str] | None = None
    """Name of each objective, as `trialbus.report` has it; null for values that are returned."""
    n_trials_of: Literal["study", "call"] = "study"
    """What `n_trials` counts: the trials of the study, or those that this call adds."""
    jobs: Literal["fork", "spawn", "launcher"] = "fork"
    """How jobs run: forked from a process that has loaded the application, in a new process, or
    through `hydra/launcher`."""
    study: dict[str, Any] = {}
    """Further fields of the study, as `trialbus study` has them: `{timeout_s: 3600}`."""
    overrides: list[str] = []
    """Overrides of `trialbus study` for the services: `[bus.dir=/tmp/bus]`."""

    def __post_init__(self) -> None:
        for name in ("n_trials", "n_jobs"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)} is below 1 (expected a number)")
        if not 0 <= self.max_failure_rate <= 1:
            raise ValueError(
                f"max_failure_rate {self.max_failure_rate:g} is no share (expected 0 to 1)"
            )
        if isinstance(self.direction, list) and not self.direction:
            raise ValueError("direction is an empty list (expected minimize or maximize)")
        if self.metric is not None and len(self.metrics) != len(self.directions):
            raise ValueError(
                f"metric {self.metric!r} names {len(self.metrics)} metrics, and direction "
                f"{len(self.directions)} (expected a metric for each direction)"
            )
        if self.pruner is not None and self.metric is None:
            raise ValueError(
                "metric is null (expected the metric that the pruner judges, by the name that "
                "trialbus.report gives it)"
            )

    @property
    def directions(self) -> list[Direction]:
        """Direction of each objective."""
        return self.direction if isinstance(self.direction, list) else [self.direction]

    @property
    def metrics(self) -> list[str]:
        """Name of each objective."""
        if self.metric is not None:
            return [self.metric] if isinstance(self.metric, str) else self.metric
        if len(self.directions) == 1:
            return ["value"]
        return [f"value_{i}" for i in range(len(self.directions))]

    @property
    def storage_url(self) -> str | None:
        """URL of the storage; None for the default.

        Raises:
            SpecError: The storage is an object without a URL.
        """
        storage = self.storage
        if is_mapping(storage):
            others = {name for name, value in storage.items() if value is not None}
            if str(storage.get("_target_")).endswith("RDBStorage") and others <= {
                "_target_",
                "url",
            }:
                storage = storage["url"]
        if storage is not None and not isinstance(storage, str):
            raise SpecError(
                f"{_KEY}.storage",
                f"{storage!r} is an object of this process, and the optimizer is another (expected "
                "a URL, such as sqlite:///studies.db or journal:///studies.log)",
            )
        return storage


def read_settings(config: DictConfig) -> SweepSettings:
    """Return the settings of the sweep of an application.

    Args:
        config: Composed config of the application, with the section `hydra`.

    Raises:
        SpecError: A key is unknown, or its value cannot be used; names the key and the value.
    """
    data = cast(
        "dict[str, Any]",
        OmegaConf.to_container(config.hydra.sweeper, resolve=True, enum_to_str=True),
    )
    given = {name: value for name, value in data.items() if name not in _NOT_SETTINGS}
    settings: SweepSettings = convert(_KEY, given, SweepSettings)
    return settings


def name_study(settings: SweepSettings, application: str) -> str:
    """Return the name of the study; a new one, by the application and the time, without a name."""
    if settings.study_name is not None:
        return settings.study_name
    return f"{application}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"


def build_spec(
    settings: SweepSettings,
    name: str,
    space: SweepSpace,
    n_trials: int,
    *,
    sampler: Mapping[str, Any],
    pruner: Mapping[str, Any] | None,
) -> StudySpec:
    """Return the study of a sweep.

    Args:
        settings: Settings of the sweep.
        name: Name of the study.
        space: Search space.
        n_trials: Total number of trials.
        sampler: Class and arguments of the sampler.
        pruner: Class and arguments of the pruner, or None.

    Raises:
        SpecError: A value cannot be used; names the key of `hydra.sweeper`.
    """
    for field, key in _FIELDS.items():
        if field in settings.study:
            raise SpecError(
                f"{_KEY}.study.{field}", f"{settings.study[field]!r} (expected {_KEY}.{key})"
            )
    is_extended = settings.custom_search_space is not None
    if not (space.params or is_extended):
        raise SpecError(
            f"{_KEY}.params",
            "nothing is varied (expected a sweep, such as x=interval(0,1); to repeat a job, "
            "sweep its seed: seed=range(0,7))",
        )
    arguments = clean_component(sampler)
    seed = arguments.pop("seed", None)
    study = {
        # What a call of hydra-optuna-sweeper does: a failed job ends the sweep by the rate alone.
        "max_failures": None,
        "on_missing_metric": "fail",
        "nan": "prune",
        "seed": zlib.crc32(name.encode()) if seed is None else seed,
        **settings.study,
        "name": name,
        **(
            {"define_by_run": True}
            if is_extended
            else {"params": {key: msgspec.to_builtins(p) for key, p in space.params.items()}}
        ),
        "objective": [
            {"metric": metric, "direction": direction}
            for metric, direction in zip(settings.metrics, settings.directions, strict=True)
        ],
        "n_trials": n_trials,
    }
    try:
        return load_spec(
            study, sampler=arguments, pruner=None if pruner is None else clean_component(pruner)
        )
    except SpecError as error:
        raise rename_key(error) from None


def rename_key(error: SpecError) -> SpecError:
    """Convert an error about a study to an error about the key of `hydra.sweeper`."""
    if error.key == "storage.url":
        return SpecError(f"{_KEY}.storage", error.problem)
    for section in ("study", "sampler", "pruner"):
        if error.key == section or error.key.startswith((f"{section}.", f"{section}[")):
            key = error.key.removeprefix("study.") if section == "study" else error.key
            return SpecError(f"{_KEY}.{key}".removesuffix(".study"), error.problem)
    return error


def clean_component(component: Mapping[str, Any]) -> dict[str, Any]:
    """Return a sampler or pruner as trialbus names it: without nulls and defaults.

    Raises:
        SpecError: An argument that Optuna has removed has another value than its default.
    """
    data = {name: value for name, value in component.items() if value is not None}
    class_ = str(data.pop("_target_", None) or data.pop("type", ""))
    if class_.startswith("optuna."):
        class_ = class_.rpartition(".")[2]
    if class_ == "MOTPESampler":  # Optuna has merged the two
        class_ = "TPESampler"
    known = _list_arguments(class_)
    for name, default in _REMOVED_ARGUMENTS.items():
        if data.get(name) == default:
            del data[name]
        elif known is not None and name in data and name not in known:
            raise SpecError(
                f"{_KEY}.sampler.{name}",
                f"{data[name]!r}: {class_} of Optuna {optuna.__version__} has no such argument, "
                f"and behaves as with {default!r} (expected {default!r}, or nothing)",
            )
    return {"type": class_, **data}


def _list_arguments(class_: str) -> list[str] | None:
    """Return the names of the arguments of a sampler of Optuna; None for another class."""
    sampler = getattr(optuna.samplers, class_, None)
    return None if sampler is None else list(inspect.signature(sampler).parameters)
