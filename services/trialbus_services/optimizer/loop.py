"""OptimizerLoop: applies the events of the log to the running studies, turn by turn.

The loop reads the log under a durable name, folds events into the ledger, lets the studies decide
from memory, and publishes what follows. Evaluations and ends are recorded behind the loop, in
batches; a trial is handed out, and a study declared finished, when the storage has it. The offset
is committed when everything before it is recorded and acknowledged. What a crash cuts off is read,
applied and decided again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection

from trialbus.client.subscriber import Record
from trialbus.messages import events
from trialbus_services.optimizer.allowed_modules import AllowedModules
from trialbus_services.optimizer.announcer import Announcer
from trialbus_services.optimizer.answering import RequestAnswers
from trialbus_services.optimizer.bus import BusClients
from trialbus_services.optimizer.ledger import Ledger, StudyState
from trialbus_services.optimizer.opening import StudyOpener
from trialbus_services.optimizer.other_programs import OtherPrograms
from trialbus_services.optimizer.param_requests import refuse_param
from trialbus_services.optimizer.rebuilding import NoSampler
from trialbus_services.optimizer.rejections import Rejections
from trialbus_services.optimizer.running_studies import RunningStudies
from trialbus_services.optimizer.running_study import RunningStudy
from trialbus_services.optimizer.status import OptimizerStatus
from trialbus_services.optimizer.status_collector import StatusCollector
from trialbus_services.optimizer.storage_writer.write_behind import WriteBehind
from trialbus_services.optimizer.storage_writer.writer import RebuildError, StorageLostError
from trialbus_services.optimizer.trial_supply import StartSampler

logger = logging.getLogger(__name__)

_TURN_BATCHES = 8  # batches of events that are read before trials are handed out
_NO_STUDY = "its study does not run"
_NO_TRIAL = "its trial, or this attempt of it, does not run"


class OptimizerLoop:
    """Keeps the studies of a bus in step with the log.

    Args:
        bus: Clients of the bus; the inbox has the events of `TYPES`.
        storage: Storage that records the studies.
        start_sampler: Starts the sampler of a study.
        collector: Counts events and collects latencies.
        allowed: Modules from which the classes of samplers and pruners may be imported; None for
            Optuna's and those of installed plugins.
        clock: Monotonic clock, in seconds.
        wall_clock: Seconds since the epoch.
    """

    TYPES = (
        events.EvaluationComplete,
        events.ArtifactLogged,
        events.TrialAttributeSet,
        events.ParamRequested,
        events.Enqueue,
        *Ledger.TYPES,
    )
    """Types of the events that the inbox has to return, see `reading.READING`."""

    def __init__(
        self,
        bus: BusClients,
        storage: WriteBehind,
        *,
        start_sampler: StartSampler,
        collector: StatusCollector,
        allowed: AllowedModules | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._inbox = bus.inbox
        self._publisher = bus.publisher
        self._replay = bus.replay
        self._storage = storage
        self._collector = collector
        self._clock = clock
        self._wall_clock = wall_clock
        self._allowed = AllowedModules() if allowed is None else allowed
        self._start_sampler = start_sampler
        self._ledger = Ledger()
        self._rejections = Rejections(collector)
        self._announcer = Announcer(storage, bus, answer_latency=collector.answer, clock=clock)
        self._studies = RunningStudies(
            self._ledger, storage, self._announcer, bus.inbox, wall_clock
        )
        self._other_programs = OtherPrograms(self._announcer, self._ledger)
        self._opener = StudyOpener(
            bus,
            self._studies,
            self._other_programs,
            self._rejections,
            make_study=self._make_study,
            make_loop=self._make_rebuilding_loop,
            clock=clock,
            wall_clock=wall_clock,
        )
        self._answers = RequestAnswers(bus, self._studies, clock=clock, wall_clock=wall_clock)
        self._is_live = False

    def recover(self) -> None:
        """Rebuild the ledger, and the curves of open trials, from the log before the commit."""
        committed = self._announcer.committed
        for record in self._replay(*Ledger.TYPES, end=committed):
            event = self._rejections.decode(record)
            if event is not None:
                self._ledger.apply(event, record.offset)
        for name, state in self._ledger.studies.items():
            if not state.is_finished:
                self._opener.open(name, committed, is_continued=True)
        for study in self._studies.values():
            study.recovered_at = self._wall_clock()
        if committed:
            logger.info("recovered %d studies from %d events", len(self._studies), committed)

    def turn(self) -> bool:
        """Apply the events that have arrived; publish, record and commit the results.

        Returns:
            Whether more events may wait: then the next turn should follow at once.

        Raises:
            StorageLostError: The file of the storage was removed or replaced. Nothing was published
                of what is not recorded: the next optimizer rebuilds the studies from the log.
        """
        if self._storage.lost_storage is not None:
            raise StorageLostError(self._storage.lost_storage)
        is_behind = self._read()
        # Nothing is decided before everything that was in the log at the start is known.
        self._is_live = self._is_live or self._inbox.caught_up
        if self._is_live:
            for name, record in self._opener.open_postponed():
                self._apply_to(record, [name])
            self._answers.check_requesters()
            self._opener.reopen_changed()
            self._answers.answer()
            for study in list(self._studies.values()):
                with self._studies.guard(study):
                    self._announce_params(study)
                    self._studies.finish_if_done(study)
        self._announcer.publish_recorded()
        self._announcer.give_up_waiting()
        self._other_programs.retract_void()
        self._announcer.commit(hold=bool(self._opener.postponed) or self._has_param_requests())
        return is_behind

    def get_status(self) -> OptimizerStatus:
        """Return the counters, states and latencies of the loop."""
        self._answers.forget_answered()
        return self._collector.make_status(self._studies, self._ledger, self._storage)

    def close(self, flush_s: float) -> None:
        """End the samplers, record pending changes within `flush_s` seconds, and publish."""
        for study in list(self._studies.values()):
            study.close_sampler()
            with self._studies.guard(study):
                study.record_elapsed(self._wall_clock())
        self._storage.close(flush_s)
        self._announcer.publish_recorded()

    def _read(self) -> bool:
        """Apply a number of batches of events; return whether more events may wait."""
        for _ in range(_TURN_BATCHES):
            records = self._inbox.records(0.0)
            for record in records:
                self._apply(record)
            if not records:
                return False
        return True

    def _apply(self, record: Record) -> None:
        """Apply a record of the log to the studies that are not postponed."""
        postponed = self._opener.postponed
        if not postponed:
            self._apply_to(record)
        elif not postponed.keep(record):
            self._apply_to(record, [n for n in self._ledger.studies if n not in postponed])

    def _apply_to(self, record: Record, studies: Collection[str] | None = None) -> None:
        """Apply a record; if it is about every study, to the named studies (None for all)."""
        event = self._rejections.decode(record)
        if event is None:
            return
        ends = self._ledger.apply(event, record.offset, studies)
        self._collector.applied += 1
        self._dispatch(event, record.offset)
        for end in ends:
            if study := self._studies.get(end.study):
                with self._studies.guard(study):
                    self._studies.close_trial(study, study.state.trials.give_up(end))

    def _dispatch(self, event: events.AnyEvent, offset: int) -> None:
        """Pass an event on to the study that the event is about."""
        match event:
            case events.EvaluationComplete():
                self._evaluate(event, offset)
            case events.StudySubmitted():
                self._opener.start(event.study, offset)
            case events.TrialRequested():
                self._answers.note_request(event.request)
            case events.ArtifactLogged():
                self._record_artifact(event)
            case events.TrialAttributeSet() | events.ParamRequested():
                self._apply_to_attempt(event, offset)
            case events.Enqueue():
                self._enqueue(event, offset)
            case events.TrialAssigned() | events.StudyFinished():
                self._note_own(event)
            case events.Stop():
                if study := self._studies.get(event.study):
                    self._studies.prune_trials(study, str(study.state.stop_reason))
            case _:
                pass

    def _evaluate(self, event: events.EvaluationComplete, offset: int) -> None:
        study = self._studies.get(event.study)
        if study is None:
            self._rejections.reject(_NO_STUDY, f"event {offset}, study {event.study!r}")
        elif (trial := study.state.trials.find_running(event)) is None:
            self._rejections.reject(
                _NO_TRIAL,
                f"event {offset}, trial {event.trial} of {event.study!r}, attempt {event.attempt}",
            )
            with self._studies.guard(study):
                study.record_late_evaluation(event, offset)
        else:
            began = time.perf_counter()
            trial.add_step(event.step)
            try:
                prune = study.evaluate(event)
            except ValueError as error:
                self._rejections.reject(
                    "its values", f"event {offset}, trial {event.trial}: {error}"
                )
            except Exception as error:  # noqa: BLE001 - as in `guard`, without its cost
                self._studies.fail(event.study, error)
            else:
                if prune is not None:
                    self._publisher.publish(prune)
                elif event.answer:
                    self._publisher.publish(
                        events.Proceed(
                            study=event.study,
                            trial=event.trial,
                            attempt=event.attempt,
                            step=event.step,
                        )
                    )
                self._collector.decision.add(time.perf_counter() - began)

    def _record_artifact(self, event: events.ArtifactLogged) -> None:
        if study := self._studies.get(event.study):
            with self._studies.guard(study):
                study.record_artifact(event)

    def _apply_to_attempt(
        self, event: events.TrialAttributeSet | events.ParamRequested, offset: int
    ) -> None:
        """Apply what counts only while the attempt that published the event runs."""
        study = self._studies.get(event.study)
        about = f"event {offset}, trial {event.trial} of {event.study!r}, attempt {event.attempt}"
        if study is None:
            self._rejections.reject(_NO_STUDY, about)
            state = self._ledger.studies.get(event.study)
            if state is not None and state.is_finished:
                self._refuse_param(event)
        elif study.state.trials.find_running(event) is None:
            self._rejections.reject(_NO_TRIAL, about)
            self._refuse_param(event)
        elif isinstance(event, events.ParamRequested):
            with self._studies.guard(study):
                answer = study.request_param(event)
                if answer is not None:
                    self._announcer.announce(answer)
        else:
            with self._studies.guard(study):
                try:
                    study.record_attribute(event)
                except (TypeError, ValueError) as error:
                    self._rejections.reject("its attribute", f"{about}: {error}")

    def _refuse_param(self, event: events.TrialAttributeSet | events.ParamRequested) -> None:
        """Tell a training that asks for a param after the end of its attempt, and waits."""
        if isinstance(event, events.ParamRequested) and event.answer:
            self._announcer.announce(refuse_param(event, "this attempt of the trial is over"))

    def _has_param_requests(self) -> bool:
        return any(study.has_param_requests for study in self._studies.values())

    def _note_own(self, event: events.TrialAssigned | events.StudyFinished) -> None:
        """Apply an event that an optimizer published: the storage may lack what it tells."""
        study = self._studies.get(event.study)
        if isinstance(event, events.StudyFinished):
            self._studies.release_finished(event)
        elif study is not None:
            with self._studies.guard(study):
                study.restore_trial(event)

    def _announce_params(self, study: RunningStudy) -> None:
        """Announce the params that the sampler suggested for running trials."""
        for answer in study.take_suggested_params():
            self._announcer.announce(answer)

    def _enqueue(self, event: events.Enqueue, offset: int) -> None:
        study = self._studies.get(event.study)
        if study is None:
            self._rejections.reject(_NO_STUDY, f"event {offset}, study {event.study!r}")
            return
        try:
            study.check_enqueued(event.params)
        except ValueError as error:
            self._rejections.reject("its params", f"event {offset}, study {event.study!r}: {error}")
            return
        with self._studies.guard(study):
            study.enqueue(event)

    def get_study(self, name: str) -> RunningStudy:
        """Return a study that runs.

        Raises:
            StorageLostError: The study does not run; the message says why.
        """
        if name in self._studies:
            return self._studies[name]
        state = self._ledger.studies.get(name)
        if state is None or state.end is None:
            raise RebuildError("it has no submission of the study any more")
        raise StorageLostError(str(state.end.error).removeprefix(f"{RebuildError.__name__}: "))

    def _make_study(self, state: StudyState) -> RunningStudy:
        return RunningStudy(state, self._storage, self._start_sampler, allowed=self._allowed)

    def _make_rebuilding_loop(self, bus: BusClients) -> OptimizerLoop:
        return OptimizerLoop(
            bus,
            self._storage,
            start_sampler=NoSampler,
            collector=StatusCollector(),
            allowed=self._allowed,
            clock=self._clock,
            wall_clock=self._wall_clock,
        )
