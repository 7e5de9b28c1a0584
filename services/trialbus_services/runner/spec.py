"""Spec files: several studies and how to run them, in one YAML file."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec
import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from trialbus.errors import SpecError
from trialbus.study.nested_config import laid_over, leaves
from trialbus.study.spec import Direction, StudySpec, is_mapping, load_spec
from trialbus_services.config import base_config
from trialbus_services.config.search_space import listed
from trialbus_services.launcher import launcher
from trialbus_services.process import gpus

_PLACE = re.compile(r"^(.*?)(?: - at `\$(.*)`)?$", re.DOTALL)


class StudyConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One study of a spec file.

    Attributes:
        study_name: Its name, on the bus and in the storage.
        parameters: The search space: a list of `{name, type, low, high, choices, step, log, when}`.
        direction: Whether more or less of `metric_name` is better.
        metric_name: The objective, as the trainer reports it.
        storage: URL of the Optuna storage.
        load_if_exists: Whether a study of this name that is there goes on; false refuses it.
        sampler: `{type: <class of Optuna>, <argument>: <value>}`. An argument that is null is left
            to the class, one that Optuna has deprecated is taken with its warning.
        pruner: The same, or None, which prunes nothing.
        n_trials: Total number of trials, over all runs.
        timeout: Seconds after which no further trial begins.
        n_jobs: Trials at the same time, `max_concurrent_trials` at most; None or -1: that many.
        catch_exceptions: Whether the study goes on after a failed trial.
        base_config: See `StudySpec`; a path is relative to the spec file.
        training_config: Values laid over `base_config`, by nested or dotted names.
        trial_overrides: The same, laid over `training_config`.
        episodes_per_trial: `trial.budget`: what one trial may train, in the trainer's unit.
        evaluation_interval: `trial.evaluation.interval`: updates between two evaluations.
        evaluation_episodes: `trial.evaluation.episodes`: of one evaluation.
        eval_frequency: Another name of `evaluation_interval`.
        eval_episodes: Another name of `evaluation_episodes`.
        report_interval: Every how many evaluations one is reported. It reaches the training as
            `trial.config["callbacks"]`, which `CallbackFactory` takes.
        use_best_value: Whether a trial's best value counts; false counts its last.
        early_stop_patience: Trials in a row without progress that end the study.
        early_stop_min_delta: Progress is more than this better than the best.
        save_checkpoints: Whether checkpoints are kept when the study has ended.
        keep_best_n: Of how many trials, the best ones; None for all.
        seed: Of the study, where the sampler has none.
    """

    study_name: str
    parameters: list[Any]
    direction: Direction = "maximize"
    metric_name: str = "mean_reward"
    storage: str = "sqlite:///optuna_studies.db"
    load_if_exists: bool = True
    sampler: dict[str, Any] = msgspec.field(default_factory=lambda: {"type": "TPESampler"})
    pruner: dict[str, Any] | None = None
    n_trials: int = 100
    timeout: float | None = None
    n_jobs: int | None = None
    catch_exceptions: bool = True
    base_config: dict[str, Any] | str | None = None
    training_config: dict[str, Any] = {}
    trial_overrides: dict[str, Any] = {}
    episodes_per_trial: int | None = None
    evaluation_interval: int | None = None
    evaluation_episodes: int | None = None
    eval_frequency: int | None = None
    eval_episodes: int | None = None
    report_interval: int = 1
    use_best_value: bool = False
    early_stop_patience: int | None = None
    early_stop_min_delta: float = 0.0
    save_checkpoints: bool = True
    keep_best_n: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.n_jobs is not None and self.n_jobs != -1 and self.n_jobs < 1:
            raise ValueError(f"n_jobs {self.n_jobs} is no number of trials (expected 1 or more)")
        for name, least in (("report_interval", 1), ("keep_best_n", 1)):
            count = getattr(self, name)
            if count is not None and count < least:
                raise ValueError(f"{name} {count} is below {least}")

    def spec(self) -> StudySpec:
        """Return the study as the bus knows it.

        Raises:
            SpecError: A value cannot be used; its key is that of this class.
        """
        callbacks = {"metric_name": self.metric_name, "report_interval": self.report_interval}
        overrides = laid_over(leaves(self.training_config), leaves(self.trial_overrides))
        if self.report_interval > 1:
            overrides |= {f"callbacks.optuna.{name}": value for name, value in callbacks.items()}
        data: dict[str, Any] = {
            "name": self.study_name,
            "params": listed(self.parameters, "parameters"),
            "objective": {
                "metric": self.metric_name,
                "direction": self.direction,
                "aggregate": "best" if self.use_best_value else "last",
            },
            "n_trials": self.n_trials,
            "timeout_s": self.timeout,
            "budget": self.episodes_per_trial,
            "evaluation": {
                "interval": self._same("evaluation_interval", "eval_frequency"),
                "episodes": self._same("evaluation_episodes", "eval_episodes"),
            },
            "base_config": base_config.read(self.base_config),
            "trial_overrides": overrides,
            "catch_exceptions": self.catch_exceptions,
            "early_stop_patience": self.early_stop_patience,
            "early_stop_min_delta": self.early_stop_min_delta,
            "seed": self.seed,
        }
        try:
            return load_spec(data, sampler=_arguments(self.sampler), pruner=_arguments(self.pruner))
        except SpecError as error:
            raise SpecError(_own_key(error.key), error.problem) from None

    def _same(self, name: str, other: str) -> int | None:
        """Return the value of a field with two names."""
        value, again = getattr(self, name), getattr(self, other)
        if None not in (value, again) and value != again:
            raise SpecError(other, f"{again} is not {name} {value}: two names of one field")
        return again if value is None else value


class RunnerSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a spec file holds.

    Attributes:
        studies: They run one after the other.
        name: Of the whole, shown when it begins.
        description: Shown under it.
        version: Of the file's own.
        trainer: What trials run: a command as a list, or `module:function`.
        results_dir: Folder for what comes out, relative to the working directory.
        dashboard_port: Where Optuna's dashboard is served while studies run, on this machine
            only; None for no dashboard. The origin's files say 8052.
        log_level: Of the services' logs.
        generate_plots: Whether each study's report, with its figures, is written.
        save_study_plots: Another name of it; either one asks for them.
        notify_on_complete: Whether the terminal's bell is rung when all has ended.
        max_concurrent_trials: Trials at the same time.
        gpu_per_trial: GPUs of one trial, or the share of one, where there are any.
    """

    studies: list[StudyConfig]
    name: str = ""
    description: str = ""
    version: str = ""
    trainer: list[str] | str | None = None
    results_dir: str = "sweep_results"
    dashboard_port: int | None = None
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    generate_plots: bool = False
    save_study_plots: bool = False
    notify_on_complete: bool = False
    max_concurrent_trials: int = 4
    gpu_per_trial: float = 1.0

    def __post_init__(self) -> None:
        if not self.studies:
            raise ValueError("studies is empty (expected at least one)")
        if self.max_concurrent_trials < 1:
            raise ValueError(f"max_concurrent_trials {self.max_concurrent_trials} is below 1")
        gpus.check(None, self.gpu_per_trial)
        names = [study.study_name for study in self.studies]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise ValueError(f"studies has {', '.join(sorted(twice))} twice (expected it once)")


def load(path: Path) -> RunnerSpec:
    """Read a spec file and check all of it.

    Raises:
        SpecError: It cannot be read or used; names the file, the key and the value.
    """
    try:
        data = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except OSError as error:
        raise SpecError(str(path), f"cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, OmegaConfBaseException, UnicodeDecodeError) as error:
        raise SpecError(str(path), f"cannot be read: {' '.join(str(error).split())}") from None
    if not is_mapping(data):
        raise SpecError(str(path), f"holds {type(data).__name__} (expected a mapping)")
    try:
        return parse(data, folder=path.parent)
    except SpecError as error:
        raise SpecError(f"{path}: {error.key}", error.problem) from None


def parse(data: Mapping[str, Any], folder: Path = Path()) -> RunnerSpec:
    """Build a spec from what a file holds, and check its studies.

    Raises:
        SpecError: A key is unknown or a value cannot be used; names the key and the value.
    """
    try:
        spec = msgspec.convert(data, RunnerSpec)
    except msgspec.ValidationError as error:
        raise _refusal(error, data) from None
    studies = [_located(study, folder) for study in spec.studies]
    for i, study in enumerate(studies):
        try:
            launcher.check(study.spec())
        except SpecError as error:
            raise SpecError(f"studies[{i}].{error.key}", error.problem) from None
        except ValueError as error:
            raise SpecError(f"studies[{i}]", str(error)) from None
    return msgspec.structs.replace(spec, studies=studies)


def _located(study: StudyConfig, folder: Path) -> StudyConfig:
    base = study.base_config
    if isinstance(base, str) and base.endswith((".yaml", ".yml")):
        return msgspec.structs.replace(study, base_config=str(folder / base))
    return study


def _refusal(error: msgspec.ValidationError, data: Any) -> SpecError:
    found = _PLACE.match(str(error))
    problem, place = (found[1], found[2] or "") if found else (str(error), "")
    for part in re.findall(r"\[(\d+)\]|\.(\w+)", place):
        try:
            data = data[int(part[0])] if part[0] else data[part[1]]
        except (KeyError, IndexError, TypeError):
            break
    key = place.removeprefix(".")
    unknown = re.search(r"unknown field `(.*)`", problem)
    if unknown:
        kind = StudyConfig if key.startswith("studies[") else RunnerSpec
        fields = kind.__struct_fields__
        near = difflib.get_close_matches(unknown[1], fields, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(fields)}"
        value = data.get(unknown[1]) if is_mapping(data) else None
        return SpecError(
            f"{key}.{unknown[1]}".lstrip("."), f"no such key (it has {value!r}); {hint}"
        )
    shown = "" if is_mapping(data) or isinstance(data, list) else f" (got {data!r})"
    return SpecError(key or "spec", f"{problem}{shown}")


def _arguments(component: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if component is None:
        return None
    found = {name: value for name, value in component.items() if value is not None}
    if found.get("type") == "PatientPruner":
        found.setdefault("wrapped_pruner", None)
    return found


#: Fields of a study as `load_spec` names them, and as a spec file does.
_OWN = {
    "name": "study_name",
    "objective.metric": "metric_name",
    "timeout_s": "timeout",
    "budget": "episodes_per_trial",
    "params": "parameters",
}


def _own_key(key: str) -> str:
    inner = key.removeprefix("study.")
    for name, own in _OWN.items():
        if inner == name or inner.startswith(f"{name}."):
            return own + inner.removeprefix(name)
    return inner
