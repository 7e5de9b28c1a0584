"""Collector: publishes the metrics that an untouched program leaves, while the program trains."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from trialbus.messages import events
from trialbus.messages.trial_events import MAX_METRICS
from trialbus.trainer.metrics import MAX_STEP
from trialbus_services.config.metric_source import MetricSource
from trialbus_services.worker.collectors.readers import Reader, StepReading, open_reader

logger = logging.getLogger(__name__)

_POLL_S = 0.2


class Collector:
    """Publishes an evaluation for each step whose metrics a program leaves.

    Args:
        trial: Trial that the program runs.
        sources: Sources of the metrics.
        paths: File or folder of each source.
        publish: Publishes an event; called from another thread.

    Raises:
        ImportError: A source needs a package that is not installed.
    """

    def __init__(
        self,
        trial: events.TrialAssigned,
        sources: Sequence[MetricSource],
        paths: Sequence[Path],
        publish: Callable[[events.EvaluationComplete], object],
    ) -> None:
        self._trial = trial
        self._publish = publish
        self._began_s = time.monotonic()
        self._lock = threading.Lock()
        self._sources = [
            _SourceState(source, open_reader(source, path))
            for source, path in zip(sources, paths, strict=True)
        ]

    async def follow(self) -> None:
        """Publish what the program leaves until the task is cancelled."""
        while True:
            await asyncio.to_thread(self.collect)
            await asyncio.sleep(_POLL_S)

    async def finish(self) -> None:
        """Publish what is left after the program has ended, and name sources without metrics."""
        await asyncio.to_thread(self.collect, is_complete=True)
        if lack := self.describe_lack():
            logger.warning("trial %d of %r: %s", self._trial.trial, self._trial.study, lack)

    def describe_lack(self) -> str | None:
        """Return which source had metrics that do not count, or none; None if all had some."""
        for state in self._sources:
            if state.refusal:
                return state.refusal
        empty = [str(state.source) for state in self._sources if not state.n_readings]
        if not empty:
            return None
        return f"the program left no metrics in trainer.metrics ({' and '.join(empty)})"

    def collect(self, *, is_complete: bool = False) -> None:
        """Publish what is new in all sources."""
        # A thread goes on when the task that waits for it, `follow`, is cancelled.
        with self._lock:
            for state in self._sources:
                for reading in state.read(is_complete=is_complete):
                    self._publish_reading(state, reading)

    def _publish_reading(self, state: _SourceState, reading: StepReading) -> None:
        metrics = _rename(reading.metrics, state.source.names)
        step = state.last_step + 1 if reading.step is None else reading.step
        if not metrics:
            return
        if step > MAX_STEP or len(metrics) > MAX_METRICS:
            state.refuse(
                f"step {step}, expected at most {MAX_STEP}"
                if step > MAX_STEP
                else f"step {step} with {len(metrics)} metrics, expected at most {MAX_METRICS}"
            )
            return
        state.last_step = step
        state.n_readings += 1
        self._publish(
            events.EvaluationComplete(
                study=self._trial.study,
                trial=self._trial.trial,
                attempt=self._trial.attempt,
                step=step,
                metrics=metrics,
                elapsed_s=time.monotonic() - self._began_s,
            )
        )


class _SourceState:
    """A source, its reader, and how far the source was read."""

    def __init__(self, source: MetricSource, reader: Reader) -> None:
        self.source = source
        self.last_step = -1
        self.n_readings = 0
        self.refusal = ""  #: what does not count of the source, and why; the first
        self._reader = reader
        self._is_readable = True

    def refuse(self, text: str) -> None:
        """Keep and log why a reading does not count, for the first of the source."""
        if not self.refusal:
            self.refusal = f"trainer.metrics ({self.source}) does not count: {text}"
            logger.warning("%s", self.refusal)

    def read(self, *, is_complete: bool) -> list[StepReading]:
        """Return the new readings; log the first of several errors in a row."""
        try:
            readings = self._reader.read(is_complete=is_complete)
        except OSError as error:
            if self._is_readable:
                logger.warning("trainer.metrics (%s) cannot be read: %s", self.source, error)
            self._is_readable = False
            return []
        self._is_readable = True
        return readings


def _rename(metrics: Mapping[str, float], names: Mapping[str, str]) -> dict[str, float]:
    return {names.get(name, name): value for name, value in metrics.items()}
