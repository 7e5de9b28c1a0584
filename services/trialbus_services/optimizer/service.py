"""The optimizer's loop between the bus and its studies.

It reads the log under a durable name, folds it into the ledger, lets the studies decide from
memory, and publishes what follows. Evaluations and endings are recorded behind it, in batches; a
trial is handed out, and a study declared finished, when the storage has it. The offset is
committed when everything before it is recorded and answered. What a crash cuts off is read,
applied and decided again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import msgspec
import sqlalchemy.exc
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage

from trialbus.client.link import Link
from trialbus.client.presence import Presence
from trialbus.client.publisher import Publisher
from trialbus.client.subscriber import Record, replay, subscribe
from trialbus.errors import SpecError, TrialbusError
from trialbus.messages import events
from trialbus.messages.topics import escaped
from trialbus_services.optimizer.announcer import Saying
from trialbus_services.optimizer.ledger import Book, Ledger
from trialbus_services.optimizer.running_study import RunningStudy
from trialbus_services.optimizer.statistics import Statistics
from trialbus_services.optimizer.status import to_info
from trialbus_services.optimizer.storage import shown
from trialbus_services.optimizer.storage_writer import WriteBehind
from trialbus_services.optimizer.study_end import conclusion, end_of, failure
from trialbus_services.process.takeover import dismiss_dead, identity

logger = logging.getLogger(__name__)

_NAME = "optimizer"
_TTL_S = 4.0
_TAKEOVER_S = 3 * _TTL_S
_TURN_S = 1.0
_TURN_BATCHES = 8  # of events, before what they led to is looked after
_INFORM_S = 2.0
_OPEN_AGAIN_S = 5.0
_FLUSH_S = 5.0


class Optimizer:
    """Serves every study submitted on a bus, recording into one storage.

    Args:
        endpoint: Where the hub is.
        storage: Where studies are recorded.
        storage_url: Its URL, for others to see.
        connect_s: Seconds to wait for the hub at start.
        ahead: Suggestions that each study keeps ready.
        record_every_s: Time between two batches that are recorded.
        max_points: Intermediate values of one trial that are recorded at most; None for all.

    Raises:
        HubUnavailableError: No hub answered in time.
        HubRefusedError: Another optimizer serves this bus.
    """

    def __init__(
        self,
        endpoint: str,
        storage: BaseStorage,
        *,
        storage_url: str,
        connect_s: float = 10.0,
        ahead: int = 1,
        record_every_s: float = 0.25,
        max_points: int | None = None,
    ) -> None:
        self._wake = threading.Event()
        self._storage = WriteBehind(
            storage,
            interval_s=record_every_s,
            max_points=max_points,
            on_written=self._wake.set,
        )
        self._ahead = ahead
        self._ledger = Ledger()
        self._studies: dict[str, RunningStudy] = {}
        #: What came about studies that wait for the storage.
        self._postponed: dict[str, list[Record]] = {}
        self._open_again_at = 0.0
        self._statistics = Statistics()
        self._asked_at: dict[str, float] = {}
        self._informed_at = 0.0
        self._live = False
        self._info: dict[str, str | float] = {"storage": shown(storage_url), **identity()}
        self._link = Link(endpoint)
        try:
            self._link.wait_connected(connect_s)
            dismiss_dead(self._link, "optimizer")
            self._presence = Presence(
                link=self._link,
                kind="optimizer",
                name=_NAME,
                ttl_s=_TTL_S,
                info=self._info,
                exclusive=True,
            )
            # One that died on another host still counts as alive for its time-to-live.
            self._presence.wait_registered(_TAKEOVER_S)
            self._inbox = subscribe(
                events.EvaluationComplete,
                events.ArtifactLogged,
                events.Enqueue,
                *Ledger.TYPES,
                name=_NAME,
                start="earliest",
                autocommit=False,
                link=self._link,
            )
            committed = self._inbox.wait_ready(connect_s)
            self._inbox.wake_on_arrival(self._wake.set)
        except BaseException:
            self._link.close()
            raise
        self._publisher = Publisher(link=self._link)
        self._saying = Saying(
            self._storage, self._publisher, self._inbox, committed, self._statistics.answer
        )

    def run(self, stopping: Callable[[], bool]) -> None:
        """Serve until `stopping` says so; looked at about once a second.

        Raises:
            TrialbusError: The hub declared this optimizer lost; another one may have taken over.
        """
        try:
            self._recover()
            while not stopping():
                self._wake.wait(_TURN_S)
                self._wake.clear()
                self._turn()
                if self._presence.lost:
                    raise TrialbusError(
                        "the hub declared this optimizer lost (was it paused?); "
                        "start it again, nothing is lost"
                    )
        finally:
            for study in self._studies.values():
                study.end()
            self._storage.close(_FLUSH_S)
            self._saying.say_recorded()
            self._publisher.close(_FLUSH_S)
            self._presence.close()
            self._inbox.close()
            self._link.close()

    def _turn(self) -> None:
        for _ in range(_TURN_BATCHES):
            records = self._inbox.records(0.0)
            for record in records:
                self._take(record)
            if not records:
                break
        else:
            self._wake.set()  # there is more
        # Nothing is decided before everything that was in the log at the start is known.
        self._live = self._live or self._inbox.caught_up
        if self._live:
            self._decide()
        self._saying.say_recorded()
        self._saying.commit(hold=bool(self._postponed))
        self._inform()

    def _recover(self) -> None:
        """Rebuild the ledger, and the curves of open trials, from the log before the commit."""
        for record in replay(*Ledger.TYPES, end=self._saying.committed, link=self._link):
            event = self._decode(record)
            if event is not None:
                self._ledger.apply(event, record.offset)
        for name, book in self._ledger.studies.items():
            if not book.is_finished:
                self._open(name)
        for name in self._studies:
            self._restore(name)
        if self._saying.committed:
            logger.info(
                "recovered %d studies from %d events", len(self._studies), self._saying.committed
            )

    def _restore(self, name: str) -> None:
        """Read again what the open trials of a study reported before the commit."""
        trials = self._ledger.studies[name].trials.open.values()
        if not trials:
            return
        for record in replay(
            events.EvaluationComplete,
            study=name,
            start=min(self._saying.committed, *(trial.since for trial in trials)),
            end=self._saying.committed,
            link=self._link,
        ):
            event = self._decode(record)
            if isinstance(event, events.EvaluationComplete) and self._ledger.current(event):
                self._studies[name].restore(event)

    def _take(self, record: Record) -> None:
        if self._postponed and (study := record.topic.split("/")[1]) in self._postponed:
            self._postponed[study].append(record)
            return
        event = self._decode(record)
        if event is None:
            return
        ends = self._ledger.apply(event, record.offset)
        self._statistics.applied += 1
        self._act(event, record.offset)
        for end in ends:
            self._guarded(end.study, lambda study, book, end=end: study.close(end))

    def _act(self, event: events.AnyEvent, offset: int) -> None:
        """Do what follows from an event beyond the ledger."""
        match event:
            case events.EvaluationComplete():
                self._take_evaluation(event, offset)
            case events.StudySubmitted():
                self._open(event.study)
                self._announce(event)
            case events.TrialRequested():
                self._asked_at[event.request] = time.monotonic()
            case events.ArtifactLogged():
                self._guarded(event.study, lambda study, book: study.log_artifact(event))
            case events.Enqueue():
                self._take_enqueue(event, offset)
            case events.StudyFinished():
                self._let_go(event)
            case events.Stop():
                self._guarded(event.study, lambda study, book: self._stop(book))
            case _:
                pass

    def _decode(self, record: Record) -> events.AnyEvent | None:
        try:
            return record.event
        except msgspec.DecodeError as error:
            what = f"event {record.offset} ({record.topic}): {error}"
            self._refuse("it cannot be read", what)
            return None

    def _refuse(self, reason: str, what: str) -> None:
        if self._statistics.refuse(reason, what):
            logger.warning("not applied, for %s: %s; more of them are only counted", reason, what)

    def _take_evaluation(self, event: events.EvaluationComplete, offset: int) -> None:
        study = self._studies.get(event.study)
        if study is None:
            self._refuse("its study does not run", f"event {offset}, study {event.study!r}")
        elif self._ledger.current(event) is None:
            self._refuse(
                "its trial, or this attempt of it, does not run",
                f"event {offset}, trial {event.trial} of {event.study!r}, attempt {event.attempt}",
            )
            self._guarded(event.study, lambda study, book: study.note_late(event, offset))
        else:
            began = time.perf_counter()
            try:
                prune = study.evaluate(event)
            except ValueError as error:
                self._refuse("its values", f"event {offset}, trial {event.trial}: {error}")
            except Exception as error:  # noqa: BLE001 - whatever it is, the other studies go on
                self._fail(event.study, self._ledger.studies[event.study], error)
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
                self._statistics.decision.add(time.perf_counter() - began)

    def _take_enqueue(self, event: events.Enqueue, offset: int) -> None:
        study = self._studies.get(event.study)
        if study is None:
            self._refuse("its study does not run", f"event {offset}, study {event.study!r}")
            return
        try:
            study.spec.check_params(event.params)
        except ValueError as error:
            self._refuse("its params", f"event {offset}, study {event.study!r}: {error}")
        else:
            self._guarded(event.study, lambda study, book: study.enqueue(event))

    def _open(self, name: str) -> None:
        book = self._ledger.studies[name]
        before = self._studies.pop(name, None)
        try:
            self._studies[name] = RunningStudy(
                book,
                self._storage,
                ahead=self._ahead,
                sampling=self._statistics.sampling,
                on_ready=self._wake.set,
                before=before,
            )
            self._ledger.discard_trials(name, self._studies[name].stale_trials)
        except (StorageInternalError, sqlalchemy.exc.OperationalError) as error:
            if escaped(name) not in self._postponed:
                logger.warning("study %r waits for the storage: %s", name, error)
            self._postponed.setdefault(escaped(name), [])
        except Exception as error:  # noqa: BLE001 - whatever it is, the other studies go on
            self._fail(name, book, error)

    def _open_postponed(self) -> None:
        """Try again to open what waits for the storage, and take what came in between."""
        if not self._postponed or time.monotonic() < self._open_again_at:
            return
        self._open_again_at = time.monotonic() + _OPEN_AGAIN_S
        for name in [name for name in self._ledger.studies if escaped(name) in self._postponed]:
            records = self._postponed.pop(escaped(name))
            self._open(name)
            if escaped(name) in self._postponed:
                self._postponed[escaped(name)] = records
                continue
            if name in self._studies:
                self._restore(name)
            for record in records:
                self._take(record)

    def _announce(self, event: events.StudySubmitted) -> None:
        study = self._studies.get(event.study)
        if study is None:
            return
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

    def _stop(self, book: Book) -> None:
        for trial in book.trials.open.values():
            if not trial.is_waiting:
                # After the assignment, which may not be said yet.
                self._saying.say(
                    events.Prune(
                        study=book.spec.name,
                        trial=trial.number,
                        attempt=trial.attempt,
                        step=0,
                        reason=str(book.stop_reason),
                    )
                )

    def _decide(self) -> None:
        """Hand out trials and finish studies, now that everything in the log is known."""
        self._open_postponed()
        waiting = list(self._ledger.requests.values())
        for name in list(self._studies) if waiting else ():
            n_waiting = sum(request.study in (name, "") for request in waiting)
            self._guarded(name, lambda study, book, n=n_waiting: self._want(study, book, n))
        for request in waiting:
            names = [request.study] if request.study else list(self._studies)
            for name in names:
                self._guarded(name, lambda study, book: self._assign(study, book, request))  # noqa: B023
                if request.request not in self._ledger.requests:
                    break
        for name in list(self._studies):
            self._guarded(name, self._finish_if_done)

    def _want(self, study: RunningStudy, book: Book, n_waiting: int) -> None:
        if not book.is_paused and end_of(study, book) is None:
            study.want(n_waiting, book)

    def _assign(self, study: RunningStudy, book: Book, request: events.TrialRequested) -> None:
        if book.is_paused or end_of(study, book) is not None:
            return
        assigned = study.assign(request, book)
        if assigned is not None:
            self._ledger.apply(assigned, self._inbox.offset or 0)
            self._saying.say(assigned, self._asked_at.pop(request.request, None))

    def _finish_if_done(self, study: RunningStudy, book: Book) -> None:
        end = end_of(study, book)
        if end is None or any(not trial.is_waiting for trial in book.trials.open.values()):
            return
        for trial in book.trials.open.values():
            study.abandon(trial, f"the study ended ({end.reason}) before it could run again")
        self._finish(book, conclusion(study, book, end))

    def _fail(self, name: str, book: Book, error: Exception) -> None:
        if isinstance(error, SpecError):
            logger.error("study %r: %s", name, error)
        else:
            logger.error("study %r cannot go on", name, exc_info=error)
        self._finish(book, failure(book, error))

    def _finish(self, book: Book, event: events.StudyFinished) -> None:
        study = self._studies.pop(event.study, None)
        self._ledger.apply(event, self._inbox.offset or 0)
        if study is not None:
            # Before the event takes its mark: it is published only when the storage has the end.
            study.conclude(event.reason)
        self._saying.say(event)
        if study is not None:
            study.release()
        logger.info("study %r finished: %s", event.study, event.reason)

    def _let_go(self, event: events.StudyFinished) -> None:
        """Leave a study alone whose end was in the log already, read once more after a crash."""
        book = self._ledger.studies.get(event.study)
        if (
            book is not None
            and book.is_finished
            and (study := self._studies.pop(event.study, None))
        ):
            study.conclude(event.reason)
            study.release()

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

    def _inform(self) -> None:
        """Show in the hub's status how things are."""
        now = time.monotonic()
        if now - self._informed_at < _INFORM_S:
            return
        self._informed_at = now
        self._asked_at = {
            request: at
            for request, at in self._asked_at.items()
            if request in self._ledger.requests
        }
        status = self._statistics.status(self._studies, self._ledger, self._storage)
        self._presence.inform(self._info | to_info(status))
