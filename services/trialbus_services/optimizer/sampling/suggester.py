"""The optimizer's side of a sampler process."""

from __future__ import annotations

import logging
import multiprocessing
import multiprocessing.forkserver
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from queue import SimpleQueue
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from trialbus.study.spec import StudySpec
from trialbus_services.optimizer.genetic_parents import renumber_parents
from trialbus_services.optimizer.latency import Latency
from trialbus_services.optimizer.sampling import sampler_process
from trialbus_services.optimizer.sampling.messages import (
    Answer,
    Exhausted,
    Failed,
    FromProcess,
    Request,
    Start,
    Suggestion,
    Tell,
    ToProcess,
    WaitingTrial,
)
from trialbus_services.optimizer.sampling.study_copy import reduce_trial

logger = logging.getLogger(__name__)

# A server that has Optuna imported forks a process in milliseconds. Forking the optimizer itself
# would copy locks that its threads hold.
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload([sampler_process.__name__])
_END_S = 10.0


def warm_up() -> None:
    """Start the server that forks sampler processes; returns at once."""
    multiprocessing.forkserver.ensure_running()


class Suggester:
    """The sampler of one study in a process of its own.

    No method waits for the process, except `close`, which kills it. All of them belong to one
    thread.

    With `ahead=0` a suggestion is computed when it is requested, from all that was told before,
    so that a seed gives the suggestions that plain Optuna gives. With more, that many are computed
    while nobody asks. They wait to be taken and count as running, and stay as they are when
    something better is known: a sampler with a constant liar then keeps its distance from them. A
    sampler that goes through a finite number of points is only asked on request. Never are more
    trials suggested ahead of need than the study has left.

    Numbers: trials have the same numbers in the copy of the study and in the study, as long as
    trials are created in the order in which suggestions are taken, and nobody enqueues a trial
    while suggestions made ahead wait. Otherwise `claim` maps one number to the other.

    Args:
        spec: The study.
        trials: All its trials, in the order of their numbers.
        study_attrs: The study's system attributes, from the storage that `trials` come from.
        ahead: How many suggestions to compute beyond those requested.
        on_ready: Called, in another thread, when there may be something new: a suggestion, an
            error, the end.
        latency: Takes the seconds that each suggestion took to compute; None for a new one.

    Source:
        `optuna.study.Study.ask`, `optuna.study.Study.tell`.
    """

    def __init__(
        self,
        spec: StudySpec,
        trials: Sequence[FrozenTrial],
        study_attrs: Mapping[str, Any],
        *,
        ahead: int,
        on_ready: Callable[[], None],
        latency: Latency | None = None,
    ) -> None:
        self.error: str | None = None
        self._on_ready = on_ready
        self._real = {index: trial.number for index, trial in enumerate(trials)}
        self._open = {
            trial.number: index
            for index, trial in enumerate(trials)
            if trial.state is TrialState.RUNNING
        }
        self._enqueued = {trial.number for trial in trials if trial.state is TrialState.WAITING}
        self._n_requested = 0
        self._ready: deque[tuple[Suggestion, float]] = deque()
        self.latency = latency or Latency()
        self._stopped = False
        self._closed = False
        self._ended = threading.Event()
        # Unbounded, since a pipe is not: a sampler at work leaves it to fill up.
        self._outbox: SimpleQueue[ToProcess | None] = SimpleQueue()
        indices = {trial._trial_id: index for index, trial in enumerate(trials)}  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
        self._outbox.put(
            Start(
                spec=spec,
                trials=[reduce_trial(trial, len(spec.objectives)) for trial in trials],
                study_attrs=renumber_parents(study_attrs, indices.get),
                ahead=ahead,
            )
        )
        self._connection, self._theirs = _CONTEXT.Pipe()
        self._process = _CONTEXT.Process(
            target=sampler_process.serve,
            args=(self._theirs,),
            name=f"sampler {spec.name}",
            daemon=True,
        )
        self._writer = threading.Thread(target=self._write, name="sampler-writer", daemon=True)
        self._reader = threading.Thread(target=self._read, name="sampler-reader", daemon=True)
        self._writer.start()

    @property
    def alive(self) -> bool:
        """Whether the sampler process runs, or is being started."""
        return not self._ended.is_set()

    @property
    def pid(self) -> int | None:
        """Process id of the sampler process; None until the process is started."""
        return self._process.pid

    @property
    def exhausted(self) -> bool:
        """Whether the sampler has no more suggestions, and all suggestions were taken."""
        return self._stopped and not self._ready

    def request(self) -> None:
        """Request another suggestion, which `take` returns."""
        self._n_requested += 1
        self._outbox.put(Request())

    def take(self) -> Suggestion | None:
        """Return a requested suggestion, in the order of asking; None if none is ready."""
        if self.error is not None or not self._n_requested or not self._ready:
            return None
        suggestion, asking_s = self._ready.popleft()
        self._n_requested -= 1
        self.latency.add(asking_s)
        attrs = renumber_parents(suggestion.study_attrs, self._real.get)
        return replace(suggestion, study_attrs=attrs)

    def claim(self, suggestion: Suggestion, number: int) -> None:
        """Note the number of the trial that was made of a suggestion."""
        self._real[suggestion.number] = number
        self._open[number] = suggestion.number

    def tell(
        self,
        number: int,
        state: TrialState,
        values: Sequence[float] | None,
        last: tuple[int, float] | None,
        constraints: Mapping[str, float] | None = None,
    ) -> None:
        """Tell the sampler how a trial ended; unknown trials and repeats are ignored.

        Args:
            number: The trial.
            state: How it ended.
            values: Its objective values, if it is complete.
            last: The last step it reported, and the value there; used if it was pruned.
            constraints: Its constraints by name; above zero they are violated.
        """
        index = self._open.pop(number, None)
        if index is None:
            logger.debug("trial %d is unknown to its sampler, or was told before", number)
            return
        self._outbox.put(Tell(index, state, values, last, dict(constraints or {})))

    def enqueue(self, trial: FrozenTrial) -> None:
        """Tell the sampler that a waiting trial was added to the study.

        The trial comes after the suggestions made before.
        """
        if trial.number not in self._enqueued:
            self._enqueued.add(trial.number)
            self._outbox.put(WaitingTrial(trial))

    def close(self) -> None:
        """End the process; may be called again."""
        self._closed = True
        self._outbox.put(None)
        self._kill()
        self._writer.join(_END_S)

    def _write(self) -> None:
        try:
            # Waits for the server, which at first imports Optuna.
            self._process.start()
        except Exception as error:  # noqa: BLE001 - whatever the system refuses
            self.error = f"the sampler process could not be started: {error}"
            self._end()
            return
        finally:
            self._theirs.close()
        self._reader.start()
        try:
            while not self._closed and (message := self._outbox.get()) is not None:
                self._connection.send(message)
        except OSError:
            logger.debug("the sampler process is gone")
        if self._closed:
            self._kill()
        self._reader.join()
        self._process.join()
        self._connection.close()

    def _kill(self) -> None:
        # One that ended already may have left its id to another process.
        if self.alive and self._process.pid is not None:
            self._process.kill()

    def _read(self) -> None:
        try:
            while True:
                self._receive(self._connection.recv())
                self._on_ready()
        except (EOFError, OSError):
            self._outbox.put(None)
            self._end()

    def _receive(self, message: FromProcess) -> None:
        match message:
            case Answer(suggestion, asking_s):
                self._ready.append((suggestion, asking_s))
            case Exhausted():
                self._stopped = True
            case Failed(error):
                self.error = error

    def _end(self) -> None:
        self._ended.set()
        if not self._closed:
            self._on_ready()
