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
from collections.abc import Callable, Collection, Generator
from contextlib import contextmanager

import msgspec
import sqlalchemy.exc
from optuna.exceptions import StorageInternalError

from trialbus.client.subscriber import Record
from trialbus.errors import SpecError
from trialbus.messages import events
from trialbus_services.optimizer.allowed_modules import AllowedModules
from trialbus_services.optimizer.announcer import Announcer
from trialbus_services.optimizer.bus import BusClients
from trialbus_services.optimizer.ledger import Ledger, StudyState
from trialbus_services.optimizer.other_programs import OtherPrograms
from trialbus_services.optimizer.param_requests import refuse_param
from trialbus_services.optimizer.postponed import PostponedRecords
from trialbus_services.optimizer.rebuilding import NoSampler, find_lost_trials, rebuild_study
from trialbus_services.optimizer.running_study import RunningStudy
from trialbus_services.optimizer.status import OptimizerStatus
from trialbus_services.optimizer.status_collector import StatusCollector
from trialbus_services.optimizer.storage_writer.write_behind import WriteBehind
from trialbus_services.optimizer.storage_writer.writer import RebuildError, StorageLostError
from trialbus_services.optimizer.study_end import (
    conclude,
    conclude_failed,
    describe_overdue,
    find_end,
    make_abandonment,
    read_recorded_trials,
)
from trialbus_services.optimizer.trial_states import AttemptEnd
from trialbus_services.optimizer.trial_supply import StartSampler
from trialbus_services.process.error_text import describe_error

logger = logging.getLogger(__name__)

_TURN_BATCHES = 8  # batches of events that are read before trials are handed out
_REOPEN_S = 5.0
_FLUSH_S = 10.0
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
        self._requesters = bus.requesters
        self._storage = storage
        self._start_sampler = start_sampler
        self._collector = collector
        self._allowed = AllowedModules() if allowed is None else allowed
        self._clock = clock
        self._wall_clock = wall_clock
        self._announcer = Announcer(storage, bus, answer_latency=collector.answer, clock=clock)
        self._ledger = Ledger()
        self._other_programs = OtherPrograms(self._announcer, self._ledger)
        self._studies: dict[str, RunningStudy] = {}
        self._postponed = PostponedRecords()
        self._reopen_at = 0.0
        self._requested_at: dict[str, float] = {}
        self._is_live = False

    def recover(self) -> None:
        """Rebuild the ledger, and the curves of open trials, from the log before the commit."""
        committed = self._announcer.committed
        for record in self._replay(*Ledger.TYPES, end=committed):
            event = self._decode(record)
            if event is not None:
                self._ledger.apply(event, record.offset)
        for name, state in self._ledger.studies.items():
            if not state.is_finished:
                self._open_study(name, committed, is_continued=True)
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
            self._open_postponed()
            self._check_requesters()
            self._reopen_changed()
            self._answer_requests()
            for study in list(self._studies.values()):
                with self._guard(study):
                    self._announce_params(study)
                    self._finish_if_done(study)
        self._announcer.publish_recorded()
        self._announcer.give_up_waiting()
        self._other_programs.retract_void()
        self._announcer.commit(hold=bool(self._postponed) or self._has_param_requests())
        return is_behind

    def get_status(self) -> OptimizerStatus:
        """Return the counters, states and latencies of the loop."""
        self._requested_at = {
            request: at
            for request, at in self._requested_at.items()
            if request in self._ledger.requests
        }
        return self._collector.make_status(self._studies, self._ledger, self._storage)

    def close(self, flush_s: float) -> None:
        """End the samplers, record pending changes within `flush_s` seconds, and publish."""
        for study in list(self._studies.values()):
            study.close_sampler()
            with self._guard(study):
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
        if not self._postponed:
            self._apply_to(record)
        elif not self._postponed.keep(record):
            self._apply_to(record, [n for n in self._ledger.studies if n not in self._postponed])

    def _apply_to(self, record: Record, studies: Collection[str] | None = None) -> None:
        """Apply a record; if it is about every study, to the named studies (None for all)."""
        event = self._decode(record)
        if event is None:
            return
        ends = self._ledger.apply(event, record.offset, studies)
        self._collector.applied += 1
        self._dispatch(event, record.offset)
        for end in ends:
            if study := self._studies.get(end.study):
                with self._guard(study):
                    self._close_trial(study, study.state.trials.give_up(end))

    def _close_trial(self, study: RunningStudy, end: AttemptEnd) -> None:
        """Record the end of a trial, and announce the verdict; ignore an end before a retry.

        A trial that another program has ended is not tried again.
        """
        number = end.trial.number
        if not end.is_closed and not study.has_ended(number):
            return
        trial_id = study.get_trial_id(number)
        self._announcer.announce(study.close_trial(end), hurry=False, trial_id=trial_id)
        if not end.is_closed:
            study.state.trials.discard(number)

    def _dispatch(self, event: events.AnyEvent, offset: int) -> None:
        """Pass an event on to the study that the event is about."""
        match event:
            case events.EvaluationComplete():
                self._evaluate(event, offset)
            case events.StudySubmitted():
                self._start_study(event.study, offset)
            case events.TrialRequested():
                self._requested_at[event.request] = self._clock()
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
                    self._prune_running_trials(study, str(study.state.stop_reason))
            case _:
                pass

    def _decode(self, record: Record) -> events.AnyEvent | None:
        try:
            return record.event
        except msgspec.DecodeError as error:
            event = f"event {record.offset} ({record.topic}): {error}"
            self._reject("it cannot be read", event)
            return None

    def _reject(self, reason: str, event: str) -> None:
        """Count an event that is not applied, and log the first for each reason."""
        if self._collector.count_refusal(reason, event):
            logger.warning(
                "not applied, because %s: %s; further ones are only counted", reason, event
            )

    def _evaluate(self, event: events.EvaluationComplete, offset: int) -> None:
        study = self._studies.get(event.study)
        if study is None:
            self._reject(_NO_STUDY, f"event {offset}, study {event.study!r}")
        elif (trial := study.state.trials.find_running(event)) is None:
            self._reject(
                _NO_TRIAL,
                f"event {offset}, trial {event.trial} of {event.study!r}, attempt {event.attempt}",
            )
            with self._guard(study):
                study.record_late_evaluation(event, offset)
        else:
            began = time.perf_counter()
            trial.add_step(event.step)
            try:
                prune = study.evaluate(event)
            except ValueError as error:
                self._reject("its values", f"event {offset}, trial {event.trial}: {error}")
            except Exception as error:  # noqa: BLE001 - as in `_guard`, without its cost
                self._finish_failed(event.study, error)
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
            with self._guard(study):
                study.record_artifact(event)

    def _apply_to_attempt(
        self, event: events.TrialAttributeSet | events.ParamRequested, offset: int
    ) -> None:
        """Apply what counts only while the attempt that published the event runs."""
        study = self._studies.get(event.study)
        about = f"event {offset}, trial {event.trial} of {event.study!r}, attempt {event.attempt}"
        if study is None:
            self._reject(_NO_STUDY, about)
            state = self._ledger.studies.get(event.study)
            if state is not None and state.is_finished:
                self._refuse_param(event)
        elif study.state.trials.find_running(event) is None:
            self._reject(_NO_TRIAL, about)
            self._refuse_param(event)
        elif isinstance(event, events.ParamRequested):
            with self._guard(study):
                answer = study.request_param(event)
                if answer is not None:
                    self._announcer.announce(answer)
        else:
            with self._guard(study):
                try:
                    study.record_attribute(event)
                except (TypeError, ValueError) as error:
                    self._reject("its attribute", f"{about}: {error}")

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
            self._release_finished(event)
        elif study is not None:
            with self._guard(study):
                study.restore_trial(event)

    def _announce_params(self, study: RunningStudy) -> None:
        """Announce the params that the sampler suggested for running trials."""
        for answer in study.take_suggested_params():
            self._announcer.announce(answer)

    def _enqueue(self, event: events.Enqueue, offset: int) -> None:
        study = self._studies.get(event.study)
        if study is None:
            self._reject(_NO_STUDY, f"event {offset}, study {event.study!r}")
            return
        try:
            study.check_enqueued(event.params)
        except ValueError as error:
            self._reject("its params", f"event {offset}, study {event.study!r}: {error}")
            return
        with self._guard(study):
            study.enqueue(event)

    def _start_study(self, name: str, offset: int) -> None:
        """Open a study that was submitted at an offset, and declare the study started."""
        running = self._studies.get(name)
        if running is not None:
            with self._guard(running):
                running.record_elapsed_before_restart(self._wall_clock())
        self._open_study(name, offset, before=running)
        if study := self._studies.get(name):
            with self._guard(study):
                self._announcer.announce(study.declare_started(self._wall_clock()))

    def _open_study(
        self,
        name: str,
        end: int,
        *,
        before: RunningStudy | None = None,
        is_continued: bool = False,
    ) -> None:
        """Open a study as the log has the study up to an offset, in place of the study `before`.

        A study that waits for the storage is opened later. Of a submission that is continued, the
        trials are rebuilt that the storage lost; a new submission begins anew in an empty storage.
        """
        try:
            if is_continued and not self._rebuild_lost(self._ledger.studies[name], end):
                return
            study = RunningStudy(
                self._ledger.studies[name],
                self._storage,
                self._start_sampler,
                allowed=self._allowed,
            )
            if before is not None:
                before.close_sampler()
            for verdict in study.forget_stale_trials():
                self._announcer.announce(verdict, hurry=False)
            if before is None or not study.evaluations.take_over(before.evaluations):
                self._restore(study, end)
            study.resume()
        except (StorageInternalError, sqlalchemy.exc.OperationalError) as error:
            if name not in self._postponed:
                logger.warning("study %r waits for the storage: %s", name, error)
            if running := self._studies.pop(name, None):
                running.close_sampler()
            self._postponed.postpone(name)
        except Exception as error:  # noqa: BLE001 - a failure of any kind ends this study only
            self._finish_failed(name, error)
        else:
            self._studies[name] = study

    def _rebuild_lost(self, state: StudyState, end: int) -> bool:
        """Rebuild the trials of a study that the storage lost, from the log up to an offset.

        Returns:
            False if nothing is rebuilt, since the log ends the study behind the offset.
        """
        if find_lost_trials(state, self._storage):
            if self._ends_later(state, end):
                return False
            rebuild_study(state, self._storage, self._replay, end, self._make_rebuilding_loop)
        return True

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

    def _ends_later(self, state: StudyState, offset: int) -> bool:
        """Tell whether the log ends the newest submission of a study behind an offset."""
        records = self._replay(events.StudyFinished, study=state.spec.name, start=offset)
        ends = [self._decode(record) for record in records]
        return any(
            isinstance(end, events.StudyFinished) and end.submission == state.submission
            for end in ends
        )

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

    def _open_postponed(self) -> None:
        """Open studies that wait for the storage, and apply the records that were postponed."""
        if not self._postponed or self._clock() < self._reopen_at:
            return
        self._reopen_at = self._clock() + _REOPEN_S
        for name in list(self._ledger.studies):
            if name not in self._postponed:
                continue
            records = self._postponed.pop(name)
            end = records[0].offset if records else self._inbox.offset
            self._open_study(name, end or 0, is_continued=True)
            if name in self._postponed:
                self._postponed.keep_for(name, *records)
                continue
            for record in records:
                if name in self._postponed:  # submitted again, and waits again
                    self._postponed.keep_for(name, record)
                else:
                    self._apply_to(record, [name])

    def _reopen_changed(self) -> None:
        """Open studies again in which another program has added, begun or ended trials."""
        for name, study in list(self._studies.items()):
            with self._guard(study):
                if study.has_conflicts():
                    del self._studies[name]
                    study.release()
                    self._storage.flush(_FLUSH_S)
                    self._announcer.publish_recorded()
                    self._other_programs.retract_void()
                    self._open_study(name, self._inbox.offset or 0, before=study)
                    if reopened := self._studies.get(name):
                        self._other_programs.settle(reopened)

    def _restore(self, study: RunningStudy, end: int) -> None:
        """Restore the evaluations of a study's open trials from the log up to an offset.

        An evaluation counts if its attempt ran when the evaluation was read for the first time.
        """
        trials = study.state.trials.open
        if not trials:
            return
        start = min(end, *(trial.first_since for trial in trials.values()))
        types = (events.EvaluationComplete, events.Prune)
        for record in self._replay(*types, study=study.spec.name, start=start, end=end):
            event = self._decode(record)
            if not isinstance(event, types):
                continue
            trial = trials.get(event.trial)
            if trial is None or not trial.was_running(event.attempt, record.offset):
                continue
            if isinstance(event, events.EvaluationComplete) and event.attempt == trial.attempt:
                trial.add_step(event.step)
            study.restore(event)

    def _prune_running_trials(self, study: RunningStudy, reason: str) -> None:
        """Send a prune command to each running trial of a study that ends."""
        for prune in study.build_prunes(reason):
            # Announced, not published at once: the assignment may not be published yet.
            self._announcer.announce(prune)

    def _check_requesters(self) -> None:
        """Declare requesters lost that the hub does not know, so that their trials run again."""
        check = self._requesters
        if check is None:
            return
        if unknown := check.take_unknown():
            requesters = self._ledger.list_requesters()
            for session in unknown:
                logger.warning(
                    "the hub does not know session %s: what it requested is void", session
                )
                for study in requesters.get(session, ()):
                    self._publisher.publish(
                        events.TrainerLost(study=study, session=session, kind="worker")
                    )
        if check.is_due:
            check.ask(self._ledger.list_requesters())

    def _prune_overdue_trials(self, study: RunningStudy) -> None:
        """Prune once the trials that still run when the time of a study and the grace are over."""
        reason = describe_overdue(study.state, self._wall_clock())
        if reason is not None and not study.is_overdue:
            study.is_overdue = True
            self._prune_running_trials(study, reason)

    def _answer_requests(self) -> None:
        """Hand out trials to the requests that wait, and refuse requests of ended studies."""
        for refused in self._ledger.find_refused():
            self._ledger.apply(refused, self._inbox.offset or 0)
            self._announcer.announce(refused)
        waiting = list(self._ledger.requests.values())
        if not waiting:
            return
        for name, study in list(self._studies.items()):
            n_waiting = sum(request.study in (name, "") for request in waiting)
            with self._guard(study):
                if self._is_handing_out(study):
                    study.request_suggestions(n_waiting)
        for request in waiting:
            for name in [request.study] if request.study else list(self._studies):
                if study := self._studies.get(name):
                    with self._guard(study):
                        self._assign(study, request)
                if request.request not in self._ledger.requests:
                    break

    def _assign(self, study: RunningStudy, request: events.TrialRequested) -> None:
        if not self._is_handing_out(study):
            return
        assigned = study.assign(request, self._wall_clock())
        for verdict in study.take_reused():
            self._announcer.announce(verdict, hurry=False)
        if assigned is not None:
            self._ledger.decide(assigned, self._inbox.offset or 0)
            self._announcer.announce(
                assigned,
                self._requested_at.pop(request.request, None),
                request=request,
                trial_id=study.get_trial_id(assigned.trial),
            )

    def _is_handing_out(self, study: RunningStudy) -> bool:
        return not study.state.is_paused and find_end(study, self._wall_clock()) is None

    def _finish_if_done(self, study: RunningStudy) -> None:
        trials = study.state.trials.open
        loss = self._storage.find_loss(study.spec.name)
        if loss is not None:
            raise StorageLostError(loss)
        end = find_end(study, self._wall_clock())
        if end is None:
            return
        if any(not trial.is_waiting for trial in trials.values()):
            self._prune_overdue_trials(study)
            return
        if study.end_mark is None:
            self._abandon_trials(study, f"the study ended ({end.reason}) while the trial waited")
            study.end_mark = self._storage.mark()
            self._storage.request_write()
        # Another program may have ended a trial that the end counts: known once all is written.
        is_settled = self._storage.is_recorded(study.end_mark) and not study.has_conflicts()
        if is_settled or self._storage.failing_since is not None:
            self._finish(conclude(study, end))

    @contextmanager
    def _guard(self, study: RunningStudy) -> Generator[None]:
        """End the study as failed, and no other study, if the block raises an exception."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - a failure of any kind ends this study only
            self._finish_failed(study.spec.name, error)

    def _finish_failed(self, name: str, error: Exception) -> None:
        """Finish a study as failed because of an error."""
        if isinstance(error, SpecError | StorageLostError):
            logger.error("study %r: %s", name, error)
        else:
            logger.error("study %r cannot continue", name, exc_info=error)
        if study := self._studies.get(name):
            reason = f"the study failed: {describe_error(error)}"
            self._prune_running_trials(study, reason)
            if not isinstance(error, StorageLostError):  # which records nothing any more
                self._abandon_trials(study, reason)
        recorded = read_recorded_trials(self._storage, name, is_running=name in self._studies)
        self._finish(conclude_failed(self._ledger.studies[name], error, *recorded))

    def _abandon_trials(self, study: RunningStudy, reason: str) -> None:
        """Close the trials of a study that ends, which are open in the log or in the storage."""
        for trial in study.list_unfinished():
            try:
                self._close_trial(study, make_abandonment(study.spec.name, trial, reason))
            except Exception:
                logger.exception("the end of trial %d cannot be recorded", trial.number)

    def _finish(self, event: events.StudyFinished) -> None:
        """Record the end of a study, and announce the end as soon as the storage has the record."""
        study = self._studies.pop(event.study, None)
        if study is not None:
            error = self._close(study, event.reason)
            if error is not None and event.reason != "failed":
                event = conclude_failed(study.state, error, event.counts, event.best_trials)
        self._ledger.apply(event, self._inbox.offset or 0)
        self._announcer.announce(event)
        logger.info("study %r finished: %s", event.study, event.reason)

    def _release_finished(self, event: events.StudyFinished) -> None:
        """Release a study after a crash, when the event `study_finished` is read again."""
        study = self._studies.get(event.study)
        if study is not None and study.state.is_finished:
            del self._studies[event.study]
            self._close(study, event.reason)

    def _close(self, study: RunningStudy, reason: events.FinishReason) -> Exception | None:
        """Record the end of a study and release the study; return the error of a failure."""
        try:
            try:
                study.record_end(reason, self._wall_clock())
            finally:
                study.release()
        except Exception as error:
            logger.exception("the end of study %r cannot be recorded", study.spec.name)
            return error
        return None
