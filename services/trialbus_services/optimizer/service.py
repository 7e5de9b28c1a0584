"""The optimizer's loop between the bus and its studies.

It reads the log under a durable name, folds it into the ledger, lets the studies record and
decide, publishes what follows, and commits its offset only when all of that is safe. What a
crash cuts off is read, applied and decided again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import msgspec
from optuna.storages import BaseStorage

from trialbus import events
from trialbus.errors import SpecError, TrialbusError
from trialbus.link import Link
from trialbus.presence import Presence
from trialbus.publisher import Publisher
from trialbus.subscriber import Record, replay, subscribe
from trialbus_services.optimizer.ledger import Book, Ledger
from trialbus_services.optimizer.storage import shown
from trialbus_services.optimizer.study import RunningStudy

logger = logging.getLogger(__name__)

_NAME = "optimizer"
_TTL_S = 4.0
_TAKEOVER_S = 3 * _TTL_S
_TURN_S = 1.0
_FLUSH_S = 5.0


class Optimizer:
    """Serves every study submitted on a bus, recording into one storage.

    Args:
        endpoint: Where the hub is.
        storage: Where studies are recorded.
        storage_url: Its URL, for others to see.
        connect_s: Seconds to wait for the hub at start.

    Raises:
        HubUnavailableError: No hub answered in time.
        HubRefusedError: Another optimizer serves this bus.
    """

    def __init__(
        self, endpoint: str, storage: BaseStorage, *, storage_url: str, connect_s: float = 10.0
    ) -> None:
        self._storage = storage
        self._ledger = Ledger()
        self._studies: dict[str, RunningStudy] = {}
        self._link = Link(endpoint)
        try:
            self._link.wait_connected(connect_s)
            self._presence = Presence(
                link=self._link,
                kind="optimizer",
                name=_NAME,
                ttl_s=_TTL_S,
                info={"storage": shown(storage_url)},
                exclusive=True,
            )
            # One that was killed a moment ago still counts as alive for its time-to-live.
            self._presence.wait_registered(_TAKEOVER_S)
            self._inbox = subscribe(
                events.EvaluationComplete,
                *Ledger.TYPES,
                name=_NAME,
                start="earliest",
                autocommit=False,
                link=self._link,
            )
            self._committed = self._inbox.wait_ready(connect_s)
        except BaseException:
            self._link.close()
            raise
        self._publisher = Publisher(link=self._link)

    def run(self, stopping: Callable[[], bool]) -> None:
        """Serve until `stopping` says so; looked at about once a second.

        Raises:
            TrialbusError: The hub declared this optimizer lost; another one may have taken over.
        """
        try:
            self._recover()
            while not stopping():
                for record in self._inbox.records(_TURN_S):
                    self._take(record)
                if self._inbox.caught_up:
                    self._decide()
                    self._commit()
                if self._presence.lost:
                    raise TrialbusError(
                        "the hub declared this optimizer lost (was it paused?); "
                        "start it again, nothing is lost"
                    )
        finally:
            self._publisher.close(_FLUSH_S)
            self._presence.close()
            self._inbox.close()
            self._link.close()

    def _recover(self) -> None:
        """Rebuild the ledger, and the curves of open trials, from the log before the commit."""
        for record in replay(*Ledger.TYPES, end=self._committed, link=self._link):
            event = self._decode(record)
            if event is not None:
                self._ledger.apply(event)
        for name, book in self._ledger.studies.items():
            if not book.finished:
                self._open(name)
        for name, study in self._studies.items():
            for number in self._ledger.studies[name].open:
                for record in replay(
                    events.EvaluationComplete,
                    study=name,
                    trial=number,
                    end=self._committed,
                    link=self._link,
                ):
                    event = self._decode(record)
                    if isinstance(event, events.EvaluationComplete) and self._ledger.current(event):
                        study.restore(event)
        if self._committed:
            logger.info("recovered %d studies from %d events", len(self._studies), self._committed)

    def _take(self, record: Record) -> None:
        event = self._decode(record)
        if event is None:
            return
        closed = self._ledger.apply(event)
        match event:
            case events.StudySubmitted():
                self._open(event.study)
                study = self._studies.get(event.study)
                if study:
                    self._announce(study, event)
            case events.EvaluationComplete() if self._ledger.current(event):
                self._guarded(event.study, lambda study, book: self._evaluate(study, event))
            case events.Stop():
                self._guarded(event.study, lambda study, book: self._stop(book))
            case _:
                pass
        for trial in closed:
            self._guarded(trial.study, lambda study, book, trial=trial: study.close(trial))

    def _decode(self, record: Record) -> events.AnyEvent | None:
        try:
            return record.event
        except msgspec.DecodeError as error:
            logger.warning("ignored event %d (%s): %s", record.offset, record.topic, error)
            return None

    def _open(self, name: str) -> None:
        book = self._ledger.studies[name]
        before = self._studies.pop(name, None)
        try:
            self._studies[name] = RunningStudy(book, self._storage, before)
        except Exception as error:  # noqa: BLE001 - whatever it is, the other studies go on
            self._fail(name, book, error)

    def _announce(self, study: RunningStudy, event: events.StudySubmitted) -> None:
        logger.info(
            "study %r: %d of %d trials done", event.study, study.n_done, event.spec.n_trials
        )
        self._publisher.publish(
            events.StudyStarted(
                study=event.study,
                submission=event.submission,
                directions=event.spec.directions,
                metrics=event.spec.metrics,
                n_trials=event.spec.n_trials,
                n_done=study.n_done,
            )
        )

    def _evaluate(self, study: RunningStudy, event: events.EvaluationComplete) -> None:
        prune = study.evaluate(event)
        if prune is not None:
            self._publisher.publish(prune)

    def _stop(self, book: Book) -> None:
        for trial in book.open.values():
            if not trial.waiting:
                self._publisher.publish(
                    events.Prune(
                        study=book.spec.name,
                        trial=trial.number,
                        attempt=trial.attempt,
                        step=0,
                        reason=str(book.stop),
                    )
                )

    def _decide(self) -> None:
        """Hand out trials and finish studies, now that everything in the log is known."""
        for request in list(self._ledger.requests.values()):
            names = [request.study] if request.study else list(self._studies)
            for name in names:
                self._guarded(name, lambda study, book: self._assign(study, book, request))  # noqa: B023
                if request.request not in self._ledger.requests:
                    break
        for name in list(self._studies):
            self._guarded(name, self._finish_if_done)

    def _assign(self, study: RunningStudy, book: Book, request: events.TrialRequested) -> None:
        if self._end_of(study, book) is not None:
            return
        assigned = study.assign(request, book)
        if assigned is not None:
            self._ledger.apply(assigned)
            self._publisher.publish(assigned)

    def _end_of(
        self, study: RunningStudy, book: Book
    ) -> tuple[events.FinishReason, str | None] | None:
        """Return why no further trial of a study may begin, or None."""
        spec = book.spec
        if book.stop is not None:
            return "stopped", book.stop
        if spec.max_failures is not None and study.failures_in_a_row >= spec.max_failures:
            return "failed", (
                f"{study.failures_in_a_row} trials in a row failed "
                f"(study.max_failures={spec.max_failures}); the last one: {study.last_error}"
            )
        if spec.timeout_s is not None and time.time() - book.submitted_at > spec.timeout_s:
            return "timeout", None
        return ("exhausted", None) if study.exhausted else None

    def _finish_if_done(self, study: RunningStudy, book: Book) -> None:
        end = self._end_of(study, book)
        if end is None or any(not trial.waiting for trial in book.open.values()):
            return
        for trial in list(book.open.values()):
            study.abandon(trial, f"the study ended ({end[0]}) before it could run again")
            del book.open[trial.number]
        best = study.best_trials()
        error = end[1]
        if not best and error is None:
            error = f"no trial was completed; the last error: {study.last_error}"
        self._finish(
            book,
            events.StudyFinished(
                study=book.spec.name,
                submission=book.submission,
                reason=end[0],
                best_trials=best,
                counts=study.counts,
                error=error,
            ),
        )

    def _fail(self, name: str, book: Book, error: Exception) -> None:
        if isinstance(error, SpecError):
            logger.error("study %r: %s", name, error)
        else:
            logger.error("study %r cannot go on", name, exc_info=error)
        self._finish(
            book,
            events.StudyFinished(
                study=name,
                submission=book.submission,
                reason="failed",
                error=f"{type(error).__name__}: {error}",
            ),
        )

    def _finish(self, book: Book, event: events.StudyFinished) -> None:
        self._studies.pop(event.study, None)
        self._ledger.apply(event)
        self._publisher.publish(event)
        logger.info("study %r finished: %s", event.study, event.reason)

    def _guarded(self, name: str, action: Callable[[RunningStudy, Book], Any]) -> None:
        """Do something with a running study; if it fails, this study ends and the others go on."""
        study = self._studies.get(name)
        if study is None:
            return
        book = self._ledger.studies[name]
        try:
            action(study, book)
        except Exception as error:  # noqa: BLE001 - whatever it is, the other studies go on
            self._fail(name, book, error)

    def _commit(self) -> None:
        offset = self._inbox.offset
        if offset is None or offset == self._committed:
            return
        # What was decided must be in the log before the reason for it counts as dealt with.
        if self._publisher.flush(_TURN_S):
            self._inbox.commit(offset)
            self._committed = offset
