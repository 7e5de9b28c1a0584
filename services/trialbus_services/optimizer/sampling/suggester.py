"""Suggester: requests suggestions from the sampler process of a study."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from queue import SimpleQueue
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from trialbus.study.spec import StudySpec
from trialbus_services.optimizer.genetic_parents import renumber_parents
from trialbus_services.optimizer.latency import Latency
from trialbus_services.optimizer.sampling import sampler_process
from trialbus_services.optimizer.sampling.fork_server import CONTEXT
from trialbus_services.optimizer.sampling.messages import (
    Answer,
    Exhausted,
    Failed,
    FromProcess,
    ParamAnswer,
    ParamRequest,
    ParamUse,
    Request,
    Skipped,
    Start,
    Suggestion,
    Tell,
    ToProcess,
    WaitingTrial,
)
from trialbus_services.optimizer.sampling.study_copy import reduce_trial

logger = logging.getLogger(__name__)

_JOIN_S = 10.0


class Suggester:
    """Requests suggestions from the sampler of a study, which runs in a separate process.

    No method waits for the process, except `close`, which kills the process. All methods have to be
    called by the same thread.

    With `ahead=0` a suggestion is computed on request, from all results told before, so that the
    same seed gives the suggestions of plain Optuna. With a higher number, that many suggestions are
    computed before they are requested. Until they are taken they count as running trials, and they
    are not computed again when more results are known; a sampler with a constant liar keeps its
    distance from them. A sampler that enumerates a finite number of points computes suggestions
    on request only. No more trials are suggested ahead of need than the study has left.

    Trials have the same numbers in the copy of the study and in the study, as long as trials are
    created in the order in which suggestions are taken, and nobody enqueues a trial while
    suggestions computed ahead wait. Otherwise `assign_number` maps one number to the other.

    Args:
        spec: Specification of the study.
        trials: All trials of the study, in the order of their numbers.
        study_attrs: System attributes of the study, from the storage of the `trials`.
        ahead: Number of suggestions to compute beyond the requested suggestions.
        on_ready: Called by another thread when a suggestion, an error or the end of the process may
            have arrived.
        latency: Collects the seconds that each suggestion took to compute; None for a new
            collection.

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
        #: Numbers in the study, by numbers in the copy of the study.
        self._numbers = {index: trial.number for index, trial in enumerate(trials)}
        #: Numbers in the copy of the study, by numbers in the study; of trials without a result.
        self._open = {
            trial.number: index
            for index, trial in enumerate(trials)
            if trial.state is TrialState.RUNNING
        }
        self._enqueued = {trial.number for trial in trials if trial.state is TrialState.WAITING}
        self._n_requested = 0
        self._ready: deque[tuple[Suggestion, float]] = deque()
        self.latency = latency or Latency()
        self._n_enqueued = 0
        #: Value of `_n_enqueued` with which the process had no more suggestions; None before.
        self._exhausted_at: int | None = None
        self._skipped: SimpleQueue[tuple[int, str]] = SimpleQueue()
        self._params: SimpleQueue[ParamAnswer] = SimpleQueue()
        self._is_closed = False
        self._ended = threading.Event()
        # Unbounded, unlike a pipe, which fills up while the sampler computes.
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
        self._connection, self._child_connection = CONTEXT.Pipe()
        self._process = CONTEXT.Process(
            target=sampler_process.serve,
            args=(self._child_connection,),
            name=f"sampler {spec.name}",
            daemon=True,
        )
        self._writer = threading.Thread(target=self._write, name="sampler-writer", daemon=True)
        self._reader = threading.Thread(target=self._read, name="sampler-reader", daemon=True)
        self._writer.start()

    @property
    def is_alive(self) -> bool:
        """Whether the sampler process runs, or is being started."""
        return not self._ended.is_set()

    @property
    def pid(self) -> int | None:
        """Process id of the sampler process; None until the process is started."""
        return self._process.pid

    @property
    def is_exhausted(self) -> bool:
        """Whether the sampler has no more suggestions, and all suggestions were taken."""
        return self._exhausted_at == self._n_enqueued and not self._ready

    def request(self) -> None:
        """Request another suggestion, which `take_suggestion` returns."""
        self._n_requested += 1
        self._outbox.put(Request())

    def take_suggestion(self) -> Suggestion | None:
        """Return the next requested suggestion, in order; None if no suggestion is ready."""
        if self.error is not None or not self._n_requested or not self._ready:
            return None
        suggestion, elapsed_s = self._ready.popleft()
        self._n_requested -= 1
        self.latency.add(elapsed_s)
        attrs = renumber_parents(suggestion.study_attrs, self._numbers.get)
        reused = None if suggestion.reused is None else self._numbers[suggestion.reused]
        return replace(suggestion, study_attrs=attrs, reused=reused)

    def take_skipped(self) -> list[tuple[int, str]]:
        """Return the waiting trials that are not going to run, with the reason, once each."""
        return [self._skipped.get_nowait() for _ in range(self._skipped.qsize())]

    def assign_number(self, suggestion: Suggestion, number: int) -> None:
        """Assign the number of the new trial to the suggestion that the trial was created from."""
        self._numbers[suggestion.number] = number
        if suggestion.reused is None:  # else the process knows the values
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
            number: Number of the trial.
            state: State of the trial.
            values: Objective values of a complete trial.
            last: Last reported step and its value; used for a pruned trial.
            constraints: Violations by constraint; above zero, the constraint is not met.
        """
        index = self._open.pop(number, None)
        if index is None:
            logger.debug("trial %d is unknown to its sampler, or was told before", number)
            return
        self._outbox.put(Tell(index, state, values, last, dict(constraints or {})))

    def request_param(self, number: int, name: str, distribution: BaseDistribution) -> None:
        """Request the value of a param of a running trial, which `take_params` returns.

        Raises:
            ValueError: The sampler does not know the trial, or was told of its end.
        """
        if number not in self._open:
            raise ValueError(f"trial {number} has ended for the sampler")
        self._outbox.put(ParamRequest(self._open[number], name, distribution))

    def tell_param(
        self, number: int, name: str, distribution: BaseDistribution, value: Any
    ) -> None:
        """Tell the sampler the value of a param that a running trial uses."""
        if number in self._open:
            self._outbox.put(ParamUse(self._open[number], name, distribution, value))

    def take_params(self) -> list[tuple[int, str, Any, str | None]]:
        """Return trial, name, value and error of the params suggested since the last call."""
        answers = [self._params.get_nowait() for _ in range(self._params.qsize())]
        return [
            (self._numbers[answer.number], answer.name, answer.value, answer.error)
            for answer in answers
        ]

    def enqueue(self, trial: FrozenTrial) -> None:
        """Tell the sampler that a waiting trial was added to the study.

        The trial comes after the suggestions that were computed before.
        """
        if trial.number not in self._enqueued:
            self._enqueued.add(trial.number)
            self._n_enqueued += 1
            self._outbox.put(WaitingTrial(trial))

    def close(self) -> None:
        """End the sampler process; may be called again."""
        self._is_closed = True
        self._outbox.put(None)
        self._kill()
        self._writer.join(_JOIN_S)

    def _write(self) -> None:
        try:
            # The first start waits until the server has imported Optuna.
            self._process.start()
        except Exception as error:  # noqa: BLE001 - the system may refuse for any reason
            self.error = f"the sampler process could not be started: {error}"
            self._mark_ended()
            return
        finally:
            self._child_connection.close()
        self._reader.start()
        try:
            while not self._is_closed and (message := self._outbox.get()) is not None:
                self._connection.send(message)
        except OSError:
            logger.debug("the sampler process has ended")
        if self._is_closed:
            self._kill()
        self._reader.join()
        self._process.join()
        self._connection.close()

    def _kill(self) -> None:
        # The id of a process that has ended may belong to another process.
        if self.is_alive and self._process.pid is not None:
            self._process.kill()

    def _read(self) -> None:
        try:
            while True:
                self._receive(self._connection.recv())
                self._on_ready()
        except (EOFError, OSError):
            self._outbox.put(None)
            self._mark_ended()

    def _receive(self, message: FromProcess) -> None:
        match message:
            case Answer(suggestion, elapsed_s):
                self._ready.append((suggestion, elapsed_s))
            case ParamAnswer() as answer:
                self._params.put(answer)
            case Exhausted(n_enqueued):
                self._exhausted_at = n_enqueued
            case Skipped(number, reason):
                self._skipped.put((number, reason))
            case Failed(error):
                self.error = error

    def _mark_ended(self) -> None:
        self._ended.set()
        if not self._is_closed:
            self._on_ready()
