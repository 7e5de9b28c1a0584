"""Callbacks: the hooks that a training calls, and a list of callbacks that acts as a callback."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, Protocol

from trialbus.errors import is_pruned
from trialbus.messages.events import EvaluationComplete
from trialbus.trainer.metrics import NO_METRICS, convert_step, flatten_metrics
from trialbus.trainer.trial import Trial

logger = logging.getLogger(__name__)


class EvaluationReceiver(Protocol):
    """Receiver of a training's evaluations: a `Trial` or `Callbacks`."""

    def report(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Report an evaluation, as `Trial.report` does."""


class EvaluationCallback:
    """Base class of callbacks: hooks of a training, empty by default.

    Attributes:
        name: Name by which `Callbacks.enable` switches the callback off and on; unique in a list.
        enabled: Whether the callback is called.
        essential: Whether an error of the callback ends the training. Errors of other callbacks are
            logged, and the training goes on. `TrialPruned` always ends the training.

    Example:
        >>> class Best(EvaluationCallback):
        ...     name, value = "best", 0.0
        ...     def on_evaluation_complete(self, event):
        ...         self.value = max(self.value, event.metrics["val/accuracy"])
    """

    name: str = ""
    enabled: bool = True
    essential: bool = False

    def on_train_start(self) -> None:
        """Handle the start of the training."""

    def on_episode_start(self, episode: int) -> None:
        """Handle the start of an episode."""

    def on_step(self, step: int) -> None:
        """Handle the end of a step."""

    def on_episode_end(self, episode: int, metrics: Mapping[str, float]) -> None:
        """Handle the end of an episode."""

    def on_rollout_start(self, rollout: int) -> None:
        """Handle the start of a rollout, in which experience is collected."""

    def on_rollout_end(self, rollout: int, metrics: Mapping[str, float]) -> None:
        """Handle the end of a rollout."""

    def on_update(self, update: int, metrics: Mapping[str, float]) -> None:
        """Handle an update of the model."""

    def on_evaluation_complete(self, event: EvaluationComplete) -> None:
        """Handle an evaluation of the model."""

    def on_error(self, error: BaseException) -> None:
        """Handle an exception other than `TrialPruned` that ends the training."""

    def on_train_end(self) -> None:
        """Handle the end of the training, with or without an exception."""


class Callbacks(EvaluationCallback):
    """A list of callbacks that acts as a callback.

    As a context manager around a training it calls `on_train_start` on entry, and `on_error` and
    `on_train_end` on exit. If a callback raises `TrialPruned`, the remaining callbacks are called
    before the exception is raised.

    Args:
        callbacks: Callbacks in the order in which they are called.
        trial: Trial whose study and number the evaluations carry.

    Raises:
        ValueError: Two callbacks have the same name.

    Example:
        >>> with Callbacks([Logger()], trial) as callbacks:  # doctest: +SKIP
        ...     for step in range(trial.budget):
        ...         callbacks.report(step, {"reward": evaluate(model)})
    """

    def __init__(
        self, callbacks: Iterable[EvaluationCallback] = (), trial: Trial | None = None
    ) -> None:
        self._callbacks: dict[str, EvaluationCallback] = {}
        self._trial = trial
        self._started_mono_s = time.monotonic()
        for callback in callbacks:
            self.add(callback)

    def __enter__(self) -> Callbacks:
        self._started_mono_s = time.monotonic()
        self.on_train_start()
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None and not is_pruned(error):
            self.on_error(error)
        self.on_train_end()

    def __iter__(self) -> Iterator[EvaluationCallback]:
        return iter(self._callbacks.values())

    def add(self, callback: EvaluationCallback) -> None:
        """Add a callback to the end of the list.

        A callback without a name gets the name of its class.

        Raises:
            ValueError: The list has a callback of the same name.
        """
        name = callback.name or type(callback).__name__
        if name in self._callbacks:
            raise ValueError(f"two callbacks are called {name!r}; give each another `name`")
        self._callbacks[name] = callback

    def enable(self, name: str, *, enabled: bool = True) -> None:
        """Switch the callback of a name on or off.

        Raises:
            KeyError: No callback has the name; the message lists the names of the callbacks.
        """
        if name not in self._callbacks:
            raise KeyError(f"no callback is called {name!r}, there are {sorted(self._callbacks)}")
        self._callbacks[name].enabled = enabled

    def report(self, step: int, metrics: Mapping[str, Any] = NO_METRICS) -> None:
        """Call `on_evaluation_complete` of every callback with an evaluation.

        Args:
            step: Step that was evaluated, as in `Trial.report`.
            metrics: Numbers by name, as in `Trial.report`.

        Raises:
            TrialPruned: A callback ends the training.
            TypeError: The step or a metric has the wrong type, as in `Trial.report`.
            ValueError: The step is out of range, or `metrics` is empty.
        """
        trial = self._trial
        self.on_evaluation_complete(
            EvaluationComplete(
                study=trial.study if trial else "",
                trial=trial.number if trial else 0,
                attempt=trial.attempt if trial else 0,
                step=convert_step(step),
                metrics=flatten_metrics(metrics),
                elapsed_s=time.monotonic() - self._started_mono_s,
            )
        )

    def on_train_start(self) -> None:
        """Call `on_train_start` of every callback."""
        self._call_each("on_train_start")

    def on_episode_start(self, episode: int) -> None:
        """Call `on_episode_start` of every callback."""
        self._call_each("on_episode_start", episode)

    def on_step(self, step: int) -> None:
        """Call `on_step` of every callback."""
        self._call_each("on_step", step)

    def on_episode_end(self, episode: int, metrics: Mapping[str, float]) -> None:
        """Call `on_episode_end` of every callback."""
        self._call_each("on_episode_end", episode, metrics)

    def on_rollout_start(self, rollout: int) -> None:
        """Call `on_rollout_start` of every callback."""
        self._call_each("on_rollout_start", rollout)

    def on_rollout_end(self, rollout: int, metrics: Mapping[str, float]) -> None:
        """Call `on_rollout_end` of every callback."""
        self._call_each("on_rollout_end", rollout, metrics)

    def on_update(self, update: int, metrics: Mapping[str, float]) -> None:
        """Call `on_update` of every callback."""
        self._call_each("on_update", update, metrics)

    def on_evaluation_complete(self, event: EvaluationComplete) -> None:
        """Call `on_evaluation_complete` of every callback."""
        self._call_each("on_evaluation_complete", event)

    def on_error(self, error: BaseException) -> None:
        """Call `on_error` of every callback."""
        self._call_each("on_error", error)

    def on_train_end(self) -> None:
        """Call `on_train_end` of every callback."""
        self._call_each("on_train_end")

    def _call_each(self, hook: str, *arguments: object) -> None:
        raised: Exception | None = None
        for name, callback in self._callbacks.items():
            if not callback.enabled:
                continue
            try:
                getattr(callback, hook)(*arguments)
            except Exception as error:
                if is_pruned(error) or callback.essential:
                    raised = raised or error
                else:
                    logger.exception("callback %r failed in %s; the training continues", name, hook)
        if raised is not None:
            raise raised
