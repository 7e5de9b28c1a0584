"""Rebuilding: a study that the storage lost is read from the log again.

The log of the hub is the write-ahead log of the storage. A second loop of the optimizer, which
hands out nothing and publishes nothing, applies the study's events to the storage once more.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Protocol

import msgspec
from optuna.distributions import BaseDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from trialbus.client.subscriber import Record
from trialbus.messages import codec, events
from trialbus.messages.topics import escape_study
from trialbus.study.spec import StudySpec
from trialbus_services.optimizer.bus import BusClients, Replay
from trialbus_services.optimizer.ledger import StudyState
from trialbus_services.optimizer.running_study import RunningStudy
from trialbus_services.optimizer.sampling.messages import Suggestion
from trialbus_services.optimizer.storage_writer.write_behind import WriteBehind

logger = logging.getLogger(__name__)

_BATCH = 512


class Loop(Protocol):
    """A loop that applies the events of an inbox; `loop.OptimizerLoop` is an implementation."""

    #: Types of the events that the loop applies.
    TYPES: tuple[type[events.Event], ...]

    def turn(self) -> bool:
        """Apply events; return whether more events may wait."""
        ...

    def get_study(self, name: str) -> RunningStudy:
        """Return a study that runs.

        Raises:
            StorageLostError: The study does not run; the message says why.
        """
        ...


def find_lost_trials(state: StudyState, storage: WriteBehind) -> set[int]:
    """Return the numbers of the trials that the log hands out and the storage lacks."""
    handed_out = state.trials.handed_out
    n_trials = storage.count_trials(state.spec.name) if handed_out else 0
    return {number for number in handed_out if number >= n_trials}


def rebuild_study(
    state: StudyState,
    storage: WriteBehind,
    replay: Replay,
    end: int,
    make_loop: Callable[[BusClients], Loop],
) -> None:
    """Rebuild a study from the log, up to an offset, in a storage that has lost trials.

    Args:
        state: The study as the log has it.
        storage: The storage, which gets all that it lacks, or nothing, in one transaction.
        replay: Reads the log.
        end: The offset.
        make_loop: Makes the loop that applies the study's events, with `NoSampler` for a sampler.

    Raises:
        StorageLostError: The log does not have everything that the storage has lost.
    """
    name = state.spec.name
    n_lost = len(find_lost_trials(state, storage))
    logger.warning(
        "the storage has lost %d trials of %r, which are rebuilt from the log", n_lost, name
    )
    is_new = not storage.has_study(name)
    directions = [StudyDirection[direction.upper()] for direction in state.spec.directions]
    storage.load_or_create_study(name, directions)
    history = StudyHistory(name)
    loop = make_loop(BusClients(history, history, replay, 0))
    begin = state.trials.begin
    history.read_answers(replay(events.ParamSuggested, study=name, start=begin))
    history.read(replay(*loop.TYPES, start=begin, end=end))
    try:
        with storage.atomic():
            while loop.turn():
                pass
            study = loop.get_study(name)
            for verdict in history.verdicts.values():
                study.restore_verdict(verdict)
            study.restore_elapsed()
    except Exception:
        if is_new:  # else the next submission would go on with a part of the trials
            storage.delete_study(storage.get_study_id_from_name(name))
        raise


class StudyHistory:
    """The inbox and the publisher of the loop that rebuilds a study.

    The inbox never catches up with the log, so that the loop only applies what the log has.

    Args:
        study: Name of the study.
    """

    def __init__(self, study: str) -> None:
        self._records: Iterator[Record] = iter(())
        self._studies = {escape_study(study), escape_study("")}
        self.caught_up = False
        self.offset: int | None = None
        self.last = 0
        #: Newest verdict of each trial.
        self.verdicts: dict[int, events.TrialClosed] = {}
        #: Value of each param that a training asked for, by trial and name.
        self._answers: dict[tuple[int, str], Any] = {}

    def read(self, records: Iterable[Record]) -> None:
        """Begin to read the records of the log, from the study's first submission on."""
        self._records = iter(records)

    def read_answers(self, records: Iterable[Record]) -> None:
        """Read the values of the params that trainings asked for."""
        for record in records:
            event = _decode(record)
            if isinstance(event, events.ParamSuggested) and event.error is None:
                self._answers[event.trial, event.name] = event.value

    def records(self, timeout_s: float | None = None) -> list[Record]:
        """Return the next records about the study; empty at the end."""
        chosen: list[Record] = []
        while not chosen and (batch := list(islice(self._records, _BATCH))):
            chosen = [applied for record in batch if (applied := self._choose(record))]
        return chosen

    def commit(self, offset: int | None = None) -> bool:
        """Commit nothing."""
        return True

    def publish(self, event: events.Event) -> int:
        """Publish nothing: the log has what followed."""
        return 0

    def acknowledged(self, seq: int) -> bool:
        """Return True: nothing was published."""
        return True

    def _choose(self, record: Record) -> Record | None:
        """Return what the loop has to apply of a record; None for nothing."""
        kind, study = record.topic.split("/")[:2]
        # The end of an earlier submission would remove the study from memory.
        if study not in self._studies or kind == "study_finished":
            return None
        if kind == "trial_closed":
            verdict = _decode(record)
            if isinstance(verdict, events.TrialClosed):
                self.verdicts[verdict.trial] = verdict
        return self._answer(record) if kind == "param_requested" else record

    def _answer(self, record: Record) -> Record:
        """Return the request for a param with the value that the sampler gave."""
        request = _decode(record)
        if not isinstance(request, events.ParamRequested) or not request.answer:
            return record
        asked = request.trial, request.name
        if asked not in self._answers:
            return record
        known = msgspec.structs.replace(request, answer=False, value=self._answers[asked])
        return msgspec.structs.replace(record, body=msgspec.Raw(codec.encode(known)))


def _decode(record: Record) -> events.AnyEvent | None:
    try:
        return record.event
    except msgspec.DecodeError:
        return None


class NoSampler:
    """The sampler of a study that is rebuilt: it suggests nothing."""

    error: str | None = None
    is_alive = True
    is_exhausted = False

    def __init__(
        self, spec: StudySpec, trials: Sequence[FrozenTrial], attrs: Mapping[str, Any]
    ) -> None:
        return

    def request(self) -> None:
        """Do nothing."""

    def take_suggestion(self) -> Suggestion | None:
        """Return None: there is no suggestion."""

    def take_skipped(self) -> list[tuple[int, str]]:
        """Return nothing: no trial is skipped."""
        return []

    def assign_number(self, suggestion: Suggestion, number: int) -> None:
        """Do nothing."""

    def tell(
        self,
        number: int,
        state: TrialState,
        values: Sequence[float] | None,
        last: tuple[int, float] | None,
        constraints: Mapping[str, float] | None = None,
    ) -> None:
        """Do nothing."""

    def request_param(self, number: int, name: str, distribution: BaseDistribution) -> None:
        """Do nothing."""

    def tell_param(
        self, number: int, name: str, distribution: BaseDistribution, value: Any
    ) -> None:
        """Do nothing."""

    def take_params(self) -> list[tuple[int, str, Any, str | None]]:
        """Return nothing: no param is suggested."""
        return []

    def enqueue(self, trial: FrozenTrial) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""
