"""RunningStudies: the studies that an optimizer works on, and how each of them ends alone."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from contextlib import contextmanager

from trialbus.errors import SpecError
from trialbus.messages import events
from trialbus_services.optimizer.announcer import Announcer
from trialbus_services.optimizer.bus import Inbox
from trialbus_services.optimizer.ledger import Ledger
from trialbus_services.optimizer.running_study import RunningStudy
from trialbus_services.optimizer.storage_writer.write_behind import WriteBehind
from trialbus_services.optimizer.storage_writer.writer import StorageLostError
from trialbus_services.optimizer.study_end import (
    conclude,
    conclude_failed,
    describe_overdue,
    find_end,
    make_abandonment,
    read_recorded_trials,
)
from trialbus_services.optimizer.trial_states import AttemptEnd
from trialbus_services.process.error_text import describe_error

logger = logging.getLogger(__name__)


class RunningStudies(dict[str, RunningStudy]):
    """The running studies, by name.

    Args:
        ledger: Ledger of the optimizer.
        storage: Storage that records the studies.
        announcer: Announces verdicts and ends behind the storage.
        inbox: Reads the log.
        wall_clock: Seconds since the epoch.
    """

    def __init__(
        self,
        ledger: Ledger,
        storage: WriteBehind,
        announcer: Announcer,
        inbox: Inbox,
        wall_clock: Callable[[], float],
    ) -> None:
        super().__init__()
        self.ledger = ledger
        self.storage = storage
        self.announcer = announcer
        self._inbox = inbox
        self._wall_clock = wall_clock

    @contextmanager
    def guard(self, study: RunningStudy) -> Generator[None]:
        """End the study as failed, and no other study, if the block raises an exception."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - a failure of any kind ends this study only
            self.fail(study.spec.name, error)

    def close_trial(self, study: RunningStudy, end: AttemptEnd) -> None:
        """Record the end of a trial, and announce the verdict; ignore an end before a retry.

        A trial that another program has ended is not tried again.
        """
        number = end.trial.number
        if not end.is_closed and not study.has_ended(number):
            return
        trial_id = study.get_trial_id(number)
        self.announcer.announce(study.close_trial(end), hurry=False, trial_id=trial_id)
        if not end.is_closed:
            study.state.trials.discard(number)

    def prune_trials(self, study: RunningStudy, reason: str) -> None:
        """Send a prune command to each running trial of a study that ends."""
        for prune in study.build_prunes(reason):
            # Announced, not published at once: the assignment may not be published yet.
            self.announcer.announce(prune)

    def finish_if_done(self, study: RunningStudy) -> None:
        """Finish a study that has a reason to end as soon as none of its trials runs."""
        trials = study.state.trials.open
        loss = self.storage.find_loss(study.spec.name)
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
            study.end_mark = self.storage.mark()
            self.storage.request_write()
        # Another program may have ended a trial that the end counts: known once all is written.
        is_settled = self.storage.is_recorded(study.end_mark) and not study.has_conflicts()
        if is_settled or self.storage.failing_since is not None:
            self._finish(conclude(study, end))

    def fail(self, name: str, error: Exception) -> None:
        """Finish a study as failed because of an error."""
        if isinstance(error, SpecError | StorageLostError):
            logger.error("study %r: %s", name, error)
        else:
            logger.error("study %r cannot continue", name, exc_info=error)
        if study := self.get(name):
            reason = f"the study failed: {describe_error(error)}"
            self.prune_trials(study, reason)
            if not isinstance(error, StorageLostError):  # which records nothing any more
                self._abandon_trials(study, reason)
        recorded = read_recorded_trials(self.storage, name, is_running=name in self)
        self._finish(conclude_failed(self.ledger.studies[name], error, *recorded))

    def release_finished(self, event: events.StudyFinished) -> None:
        """Release a study after a crash, when the event `study_finished` is read again."""
        study = self.get(event.study)
        if study is not None and study.state.is_finished:
            del self[event.study]
            self._close(study, event.reason)

    def _prune_overdue_trials(self, study: RunningStudy) -> None:
        """Prune once the trials that still run when the time of a study and the grace are over."""
        reason = describe_overdue(study.state, self._wall_clock())
        if reason is not None and not study.is_overdue:
            study.is_overdue = True
            self.prune_trials(study, reason)

    def _abandon_trials(self, study: RunningStudy, reason: str) -> None:
        """Close the trials of a study that ends, which are open in the log or in the storage."""
        for trial in study.list_unfinished():
            try:
                end = make_abandonment(study.spec.name, trial, reason, self._wall_clock())
                self.close_trial(study, end)
            except Exception:
                logger.exception("the end of trial %d cannot be recorded", trial.number)

    def _finish(self, event: events.StudyFinished) -> None:
        """Record the end of a study, and announce the end as soon as the storage has the record."""
        study = self.pop(event.study, None)
        if study is not None:
            error = self._close(study, event.reason)
            if error is not None and event.reason != "failed":
                event = conclude_failed(study.state, error, event.counts, event.best_trials)
        self.ledger.apply(event, self._inbox.offset or 0)
        self.announcer.announce(event)
        logger.info("study %r finished: %s", event.study, event.reason)

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
