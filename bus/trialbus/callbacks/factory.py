"""Builds the callbacks of a training from its configuration."""

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
from trialbus.study.user_code import load_class
from trialbus.study.validation import format_expected, is_mapping
from trialbus.trainer.trial import Trial

#: Where a worker puts the section `callbacks` of its config for the trainings it starts, as JSON.
CALLBACKS_VARIABLE = "TRIALBUS_CALLBACKS"

_TARGET = "_target_"


@dataclass(kw_only=True)
class CallbackConfig:
    """The callbacks of a training; usable as a structured config of Hydra."""

    optuna: OptunaCallbackConfig = field(default_factory=OptunaCallbackConfig)
    """How evaluations are reported to the trial."""
    others: dict[str, Any] = field(default_factory=dict[str, Any])
    """Callbacks of the user by name. `_target_` is the import path of the class, `enabled: false`
    leaves the callback out, and all else goes to the constructor, with the trial if the constructor
    has an argument `trial`."""


class CallbackFactory:
    """Builds the callbacks that a configuration names.

    Args:
        config: A `CallbackConfig`, or a mapping of its fields, as Hydra gives it. None takes that
            of the worker which started this process (`callbacks.optuna.metric_name=...`), and the
            defaults where there is none.

    Raises:
        SpecError: A key is unknown or a value cannot be used; names it.

    Example:
        >>> factory = CallbackFactory({"optuna": {"metric_name": "mean_reward"}})
        >>> with factory.build(trial) as callbacks:  # doctest: +SKIP
        ...     train(on_evaluation=callbacks.report)
    """

    def __init__(self, config: CallbackConfig | Mapping[str, Any] | None = None) -> None:
        if config is None:
            config = _handed()
        if isinstance(config, CallbackConfig):
            self.config = config
            return
        found = dict(config)
        _check(found, CallbackConfig, "callbacks")
        optuna = found.get("optuna")
        if is_mapping(optuna):
            _check(optuna, OptunaCallbackConfig, "callbacks.optuna")
            try:
                found["optuna"] = OptunaCallbackConfig(**optuna)
            except (ValueError, TypeError) as error:
                raise SpecError("callbacks.optuna", str(error)) from None
        self.config = CallbackConfig(**found)

    def build(self, trial: Trial | None = None) -> Callbacks:
        """Return the callbacks; without a trial there is nobody to report to.

        Raises:
            SpecError: A class cannot be imported or made, or is no `EvaluationCallback`.
        """
        callbacks = Callbacks(trial=trial)
        if trial is not None:
            callbacks.add(OptunaCallback(trial, self.config.optuna))
        for name, settings in self.config.others.items():
            if settings.get("enabled", True):
                callback = _made(f"callbacks.others.{name}", dict(settings), trial)
                callback.name = name
                callbacks.add(callback)
        return callbacks


def _handed() -> Mapping[str, Any]:
    try:
        found: Any = json.loads(os.environ.get(CALLBACKS_VARIABLE) or "{}")
    except ValueError as error:
        raise SpecError(CALLBACKS_VARIABLE, f"is not JSON: {error}") from None
    if not is_mapping(found):
        raise SpecError(CALLBACKS_VARIABLE, f"{found!r} is not a mapping")
    return found


def _check(found: Mapping[str, Any], type_: type[Any], where: str) -> None:
    known = [f.name for f in fields(type_)]
    for key in found:
        if key not in known:
            raise SpecError(f"{where}.{key}", f"no such key{format_expected(key, known)}")


def _made(where: str, settings: dict[str, Any], trial: Trial | None) -> EvaluationCallback:
    target = settings.pop(_TARGET, None)
    settings.pop("enabled", None)
    class_ = load_class(f"{where}.{_TARGET}", target, EvaluationCallback)
    if "trial" in inspect.signature(class_).parameters:
        settings["trial"] = trial
    try:
        return class_(**settings)
    except TypeError as error:
        raise SpecError(where, str(error)) from None
