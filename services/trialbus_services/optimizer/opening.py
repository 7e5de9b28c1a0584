"""StudyOpener: opens the studies of the log in the storage, also after a restart or a conflict."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import sqlalchemy.exc
from optuna.exceptions import StorageInternalError

from trialbus.client.subscriber import Record
from trialbus.messages import events
from trialbus_services.optimizer.bus import BusClients
from trialbus_services.optimizer.ledger import StudyState
from trialbus_services.optimizer.other_programs import OtherPrograms
from trialbus_services.optimizer.postponed import PostponedRecords
from trialbus_services.optimizer.rebuilding import Loop, find_lost_trials, rebuild_study
from trialbus_services.optimizer.rejections import Rejections
from trialbus_services.optimizer.running_studies import RunningStudies
from trialbus_services.optimizer.running_study import RunningStudy

logger = logging.getLogger(__name__)

_REOPEN_S = 5.0
_FLUSH_S = 10.0


class StudyOpener:
    """Opens studies; a study whose storage cannot be reached is postponed.

    Args:
        bus: Clients of the bus.
        studies: The running studies, to which an opened study is added.
        other_programs: What follows for trials of other programs.
        rejections: Counts events that cannot be read.
        make_study: Makes the running study of a state.
        make_loop: Makes a loop that rebuilds a study from the clients of a part of the log.
        clock: Monotonic clock, in seconds.
        wall_clock: Seconds since the epoch.
    """

    def __init__(
        self,
        bus: BusClients,
        studies: RunningStudies,
        other_programs: OtherPrograms,
        rejections: Rejections,
        *,
        make_study: Callable[[StudyState], RunningStudy],
        make_loop: Callable[[BusClients], Loop],
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
    ) -> None:
        self.postponed = PostponedRecords()
        self._inbox = bus.inbox
        self._replay = bus.replay
        self._ledger = studies.ledger
        self._storage = studies.storage
        self._announcer = studies.announcer
        self._studies = studies
        self._other_programs = other_programs
        self._rejections = rejections
        self._make_study = make_study
        self._make_loop = make_loop
        self._clock = clock
        self._wall_clock = wall_clock
        self._reopen_at = 0.0

    def start(self, name: str, offset: int) -> None:
        """Open a study that was submitted at an offset, and declare the study started."""
        running = self._studies.get(name)
        if running is not None:
            with self._studies.guard(running):
                running.record_elapsed_before_restart(self._wall_clock())
        self.open(name, offset, before=running)
        if study := self._studies.get(name):
            with self._studies.guard(study):
                self._announcer.announce(study.declare_started(self._wall_clock()))

    def open(
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
            study = self._make_study(self._ledger.studies[name])
            if before is not None:
                before.close_sampler()
            for verdict in study.forget_stale_trials():
                self._announcer.announce(verdict, hurry=False)
            if before is None or not study.evaluations.take_over(before.evaluations):
                self._restore(study, end)
            study.resume()
        except (StorageInternalError, sqlalchemy.exc.OperationalError) as error:
            if name not in self.postponed:
                logger.warning("study %r waits for the storage: %s", name, error)
            if running := self._studies.pop(name, None):
                running.close_sampler()
            self.postponed.postpone(name)
        except Exception as error:  # noqa: BLE001 - a failure of any kind ends this study only
            self._studies.fail(name, error)
        else:
            self._studies[name] = study

    def open_postponed(self) -> Iterator[tuple[str, Record]]:
        """Open studies that wait for the storage; yield their names with the records to apply."""
        if not self.postponed or self._clock() < self._reopen_at:
            return
        self._reopen_at = self._clock() + _REOPEN_S
        for name in list(self._ledger.studies):
            if name not in self.postponed:
                continue
            records = self.postponed.pop(name)
            end = records[0].offset if records else self._inbox.offset
            self.open(name, end or 0, is_continued=True)
            if name in self.postponed:
                self.postponed.keep_for(name, *records)
                continue
            for record in records:
                if name in self.postponed:  # submitted again, and waits again
                    self.postponed.keep_for(name, record)
                else:
                    yield name, record

    def reopen_changed(self) -> None:
        """Open studies again in which another program has added, begun or ended trials."""
        for name, study in list(self._studies.items()):
            with self._studies.guard(study):
                if study.has_conflicts():
                    del self._studies[name]
                    study.release()
                    self._storage.flush(_FLUSH_S)
                    self._announcer.publish_recorded()
                    self._other_programs.retract_void()
                    self.open(name, self._inbox.offset or 0, before=study)
                    if reopened := self._studies.get(name):
                        self._other_programs.settle(reopened)

    def _rebuild_lost(self, state: StudyState, end: int) -> bool:
        """Rebuild the trials of a study that the storage lost, from the log up to an offset.

        Returns:
            False if nothing is rebuilt, since the log ends the study behind the offset.
        """
        if find_lost_trials(state, self._storage):
            if self._ends_later(state, end):
                return False
            rebuild_study(state, self._storage, self._replay, end, self._make_loop)
        return True

    def _ends_later(self, state: StudyState, offset: int) -> bool:
        """Tell whether the log ends the newest submission of a study behind an offset."""
        records = self._replay(events.StudyFinished, study=state.spec.name, start=offset)
        ends = [self._rejections.decode(record) for record in records]
        return any(
            isinstance(end, events.StudyFinished) and end.submission == state.submission
            for end in ends
        )

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
            event = self._rejections.decode(record)
            if not isinstance(event, types):
                continue
            trial = trials.get(event.trial)
            if trial is None or not trial.was_running(event.attempt, record.offset):
                continue
            if isinstance(event, events.EvaluationComplete) and event.attempt == trial.attempt:
                trial.add_step(event.step)
            study.restore(event)
