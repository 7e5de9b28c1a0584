"""Factory: builds the callbacks of a training from a configuration."""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from trialbus.callbacks.evaluation import Callbacks, EvaluationCallback
from trialbus.callbacks.optuna import OptunaCallback, OptunaCallbackConfig
from trialbus.errors import SpecError
from trialbus.study.allowed_modules import (
    contain,
    find_targets,
    normalize_modules,
    normalize_path,
)
from trialbus.study.user_code import load_class
from trialbus.study.validation import format_expected, is_mapping
from trialbus.trainer.trial import Trial

#: Environment variable of a training, set by the worker: the section `callbacks` as JSON.
CALLBACKS_VARIABLE = "TRIALBUS_CALLBACKS"

#: Environment variable of a training, set by the worker or its operator: names of modules,
#: separated by commas, from which the callbacks of a study may be imported.
ALLOWED_VARIABLE = "TRIALBUS_ALLOWED_MODULES"

_TARGET = "_target_"
_BUILT_IN = ("trialbus",)


@dataclass(kw_only=True)
class CallbackConfig:
    """Configuration of a training's callbacks; usable as a structured config of Hydra."""

    optuna: OptunaCallbackConfig = field(default_factory=OptunaCallbackConfig)
    """How evaluations are reported to the trial."""

    others: dict[str, Any] = field(default_factory=dict[str, Any])
    """Callbacks of the user by name.

    `_target_` is the import path of the class, and `enabled: false` leaves the callback out. All
    other keys are arguments of the class; an argument `trial` gets the trial.
    """


class CallbackFactory:
    """Builds the callbacks that a configuration names.

    A class that the configuration of the study names, `trial.config`, is imported only from
    trialbus and from the modules in `TRIALBUS_ALLOWED_MODULES` (`worker.allowed_modules`): the
    study may be a stranger's.

    Args:
        config: A `CallbackConfig`, or a mapping with the same fields, as Hydra gives. None means
            the configuration of the worker that started this process
            (`callbacks.optuna.metric_name=...`), or the defaults without a worker.

    Raises:
        SpecError: A key is unknown or a value cannot be used; names the key.

    Example:
        >>> factory = CallbackFactory({"optuna": {"metric_name": "mean_reward"}})
        >>> with factory.build(trial) as callbacks:  # doctest: +SKIP
        ...     train(on_evaluation=callbacks.report)
    """

    def __init__(self, config: CallbackConfig | Mapping[str, Any] | None = None) -> None:
        if config is None:
            config = _read_environment()
        if isinstance(config, CallbackConfig):
            self.config = config
            return
        values = dict(config)
        _check_keys(values, CallbackConfig, "callbacks")
        optuna = values.get("optuna")
        if is_mapping(optuna):
            _check_keys(optuna, OptunaCallbackConfig, "callbacks.optuna")
            try:
                values["optuna"] = OptunaCallbackConfig(**optuna)
            except (ValueError, TypeError) as error:
                raise SpecError("callbacks.optuna", str(error)) from None
        self.config = CallbackConfig(**values)

    def build(self, trial: Trial | None = None) -> Callbacks:
        """Build the callbacks; without a trial the list has no `OptunaCallback`.

        Raises:
            SpecError: A class may not or cannot be imported, is not an `EvaluationCallback`, or
                refuses an argument.
        """
        callbacks = Callbacks(trial=trial)
        if trial is not None:
            callbacks.add(OptunaCallback(trial, self.config.optuna))
        for name, settings in self.config.others.items():
            if settings.get("enabled", True):
                callback = _build_callback(f"callbacks.others.{name}", dict(settings), trial)
                callback.name = name
                callbacks.add(callback)
        return callbacks


def _read_environment() -> Mapping[str, Any]:
    try:
        config: Any = json.loads(os.environ.get(CALLBACKS_VARIABLE) or "{}")
    except ValueError as error:
        raise SpecError(CALLBACKS_VARIABLE, f"is not JSON: {error}") from None
    if not is_mapping(config):
        raise SpecError(CALLBACKS_VARIABLE, f"{config!r} is not a mapping")
    return config


def _check_keys(config: Mapping[str, Any], type_: type[Any], path: str) -> None:
    known = [f.name for f in fields(type_)]
    for key in config:
        if key not in known:
            raise SpecError(f"{path}.{key}", f"no such key{format_expected(key, known)}")


def _check_allowed(key: str, target: object, trial: Trial | None) -> None:
    """Refuse a class that the study of a trial names and nobody allowed.

    Raises:
        SpecError: The class is not allowed; nothing was imported.
    """
    if trial is None or not isinstance(target, str):
        return
    if target not in set(find_targets(trial.config)):
        return  # the training itself names the class, or its worker
    names = filter(None, os.environ.get(ALLOWED_VARIABLE, "").split(","))
    if not contain((*_BUILT_IN, *normalize_modules(ALLOWED_VARIABLE, names)), target):
        module = normalize_path(target).rpartition(".")[0]
        raise SpecError(
            key,
            f"{target!r} is of a module that trainings may not import because a study names it; "
            f"whoever runs the worker can allow it with worker.allowed_modules=[{module}]",
        )


def _build_callback(path: str, settings: dict[str, Any], trial: Trial | None) -> EvaluationCallback:
    target = settings.pop(_TARGET, None)
    settings.pop("enabled", None)
    _check_allowed(f"{path}.{_TARGET}", target, trial)
    class_ = load_class(f"{path}.{_TARGET}", target, EvaluationCallback)
    if "trial" in inspect.signature(class_).parameters:
        settings["trial"] = trial
    try:
        return class_(**settings)
    except TypeError as error:
        raise SpecError(path, str(error)) from None
