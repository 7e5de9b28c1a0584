"""Callbacks: what a training calls at the turns of its life, and a list that acts as one."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, Protocol

from trialbus.errors import TrialPruned
from trialbus.messages.events import EvaluationComplete
from trialbus.trainer.metrics import flatten_metrics
from trialbus.trainer.trial import Trial

logger = logging.getLogger(__name__)


class Reported(Protocol):
    """Whom a training reports to: a `Trial`, or `Callbacks`."""

    def report(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Take an evaluation, as `Trial.report` does."""


class EvaluationCallback:
    """What happens at the turns of a training's life. Override what is needed, by default nothing.

    Attributes:
        name: By which it is switched off and on; unique in its list.
        enabled: Whether it is called.
        essential: Whether the training ends when it raises. An error of any other is logged, and
            the training goes on. `TrialPruned` always ends the training.

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
        """The training begins."""

    def on_episode_start(self, episode: int) -> None:
        """An episode begins."""

    def on_step(self, step: int) -> None:
        """A step was made."""

    def on_episode_end(self, episode: int, metrics: Mapping[str, float]) -> None:
        """An episode ended."""

    def on_rollout_start(self, rollout: int) -> None:
        """Experience is about to be collected."""

    def on_rollout_end(self, rollout: int, metrics: Mapping[str, float]) -> None:
        """Experience was collected."""

    def on_update(self, update: int, metrics: Mapping[str, float]) -> None:
        """The model was changed."""

    def on_evaluation_complete(self, event: EvaluationComplete) -> None:
        """The model was evaluated."""

    def on_error(self, error: BaseException) -> None:
        """The training ends by an exception other than `TrialPruned`; `on_train_end` follows."""

    def on_train_end(self) -> None:
        """The training ended, in whatever way."""


class Callbacks(EvaluationCallback):
    """Callbacks that are called one after the other, as one.

    A context manager around a training: entering it is the training's start, leaving it its end.
    Every callback hears of an evaluation before a `TrialPruned` of one of them is let out.

    Args:
        callbacks: In the order in which they are called.
        trial: Whose study and number the evaluations carry.

    Raises:
        ValueError: Two have the same name.

    Example:
        >>> with Callbacks([Logger()], trial) as callbacks:  # doctest: +SKIP
        ...     for step in range(trial.budget):
        ...         callbacks.report(step, {"reward": evaluate(model)})
    """

    def __init__(
        self, callbacks: Iterable[EvaluationCallback] = (), trial: Trial | None = None
    ) -> None:
        self._members: dict[str, EvaluationCallback] = {}
        self._trial = trial
        self._began = time.monotonic()
        for callback in callbacks:
            self.add(callback)

    def __enter__(self) -> Callbacks:
        self._began = time.monotonic()
        self.on_train_start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None and not isinstance(error, TrialPruned):
            self.on_error(error)
        self.on_train_end()

    def __iter__(self) -> Iterator[EvaluationCallback]:
        return iter(self._members.values())

    def add(self, callback: EvaluationCallback) -> None:
        """Call one more, after the others. Without a name it gets that of its class."""
        name = callback.name or type(callback).__name__
        if name in self._members:
            raise ValueError(f"two callbacks are called {name!r}; give one another `name`")
        self._members[name] = callback

    def enable(self, name: str, *, enabled: bool = True) -> None:
        """Call the callback of a name from now on, or no longer.

        Raises:
            KeyError: There is none of that name; the message has those there are.
        """
        if name not in self._members:
            raise KeyError(f"no callback is called {name!r}, there are {sorted(self._members)}")
        self._members[name].enabled = enabled

    def report(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Tell every callback of an evaluation.

        Args:
            step: As in `Trial.report`.
            metrics: As in `Trial.report`.

        Raises:
            TrialPruned: A callback says that the training is to end.
            TypeError: A metric is not one number; names its key.
        """
        trial = self._trial
        self.on_evaluation_complete(
            EvaluationComplete(
                study=trial.study if trial else "",
                trial=trial.number if trial else 0,
                attempt=trial.attempt if trial else 0,
                step=step,
                metrics=flatten_metrics(metrics),
                elapsed_s=time.monotonic() - self._began,
            )
        )

    def on_train_start(self) -> None:
        """Call every callback's."""
        self._each("on_train_start")

    def on_episode_start(self, episode: int) -> None:
        """Call every callback's."""
        self._each("on_episode_start", episode)

    def on_step(self, step: int) -> None:
        """Call every callback's."""
        self._each("on_step", step)

    def on_episode_end(self, episode: int, metrics: Mapping[str, float]) -> None:
        """Call every callback's."""
        self._each("on_episode_end", episode, metrics)

    def on_rollout_start(self, rollout: int) -> None:
        """Call every callback's."""
        self._each("on_rollout_start", rollout)

    def on_rollout_end(self, rollout: int, metrics: Mapping[str, float]) -> None:
        """Call every callback's."""
        self._each("on_rollout_end", rollout, metrics)

    def on_update(self, update: int, metrics: Mapping[str, float]) -> None:
        """Call every callback's."""
        self._each("on_update", update, metrics)

    def on_evaluation_complete(self, event: EvaluationComplete) -> None:
        """Call every callback's."""
        self._each("on_evaluation_complete", event)

    def on_error(self, error: BaseException) -> None:
        """Call every callback's."""
        self._each("on_error", error)

    def on_train_end(self) -> None:
        """Call every callback's."""
        self._each("on_train_end")

    def _each(self, hook: str, *arguments: object) -> None:
        ending: Exception | None = None
        for name, callback in self._members.items():
            if not callback.enabled:
                continue
            try:
                getattr(callback, hook)(*arguments)
            except Exception as error:
                if isinstance(error, TrialPruned) or callback.essential:
                    ending = ending or error
                else:
                    logger.exception("callback %r failed in %s; the training goes on", name, hook)
        if ending is not None:
            raise ending
