"""Callbacks of a training, and ready callbacks for training libraries.

`EvaluationCallback` is the base class, `Callbacks` a list that acts as a callback, and
`CallbackFactory` builds the list from a configuration. The modules `lightning`, `transformers`,
`sb3`, `lightgbm` and `hydra` are imported only by users of the library of that name.
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
