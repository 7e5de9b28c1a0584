"""Callbacks of a training, and ready ones for training libraries.

`EvaluationCallback` is the base, `Callbacks` a list of them that acts as one, `CallbackFactory`
builds it from a configuration. `lightning`, `transformers`, `sb3`, `lightgbm` and `hydra` are
modules of their own, each imported only by who uses that library.
"""

from trialbus.callbacks.evaluation import Callbacks, EvaluationCallback
from trialbus.callbacks.factory import CallbackConfig, CallbackFactory
from trialbus.callbacks.optuna import OptunaCallback, OptunaCallbackConfig

__all__ = [
    "CallbackConfig",
    "CallbackFactory",
    "Callbacks",
    "EvaluationCallback",
    "OptunaCallback",
    "OptunaCallbackConfig",
]
