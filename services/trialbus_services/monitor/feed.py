"""Feed: a thread that follows the log and folds events into the board of each study."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

import msgspec

from trialbus.client.admin import hub_status
from trialbus.client.link import Link
from trialbus.client.subscriber import Subscriber, subscribe
from trialbus.errors import HubUnavailableError, LogResetError, TrialbusError
from trialbus.messages import events
from trialbus_services.monitor.board import BEGINNING, Board, Json
from trialbus_services.process.error_text import describe_error

logger = logging.getLogger(__name__)

_FETCH_S = 0.5
_RETRY_S = 2.0
_STATUS_S = 3.0


class Feed:
    """Thread that keeps the boards of all studies of a bus up to date.

    Hold `lock` to read the boards. When the hub comes back with another log, the boards are built
    anew and `epoch` changes.

    Args:
        link: Connection to the hub.
        on_change: Called from the thread after every change.
    """

    def __init__(self, link: Link, on_change: Callable[[], None]) -> None:
        self.lock = threading.Lock()
        self.boards: dict[str, Board] = {}
        self.epoch = ""
        """Id of the log that the boards were built from."""
        self.offset = BEGINNING
        """Offset of the newest applied event."""
        self.caught_up = False
        """Whether the log was read up to its end once."""
        self.error = ""
        """Error that keeps the log from being read; empty while there is none."""
        self._link = link
        self._on_change = on_change
        self._replayed_at = 0.0
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="monitor-feed", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """Stop and join the thread."""
        self._closing.set()
        self._thread.join()

    def get_changes(self, study: str | None, offset: int) -> Json:
        """Return the changes after an offset: all of `study`, and the summaries of all studies."""
        with self.lock:
            board = self.boards.get(study or "")
            summaries = [b.summarize() for b in self.boards.values() if b.changed > offset]
            return {
                "studies": summaries,
                "study": board.get_changes(offset) if board and board.changed > offset else None,
            }

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                self._follow()
            except LogResetError:
                logger.warning("the hub serves another log now; the page starts over")
            except HubUnavailableError:
                continue  # the link reconnects
            except TrialbusError as error:
                self._report_error(str(error))
            except Exception as error:
                logger.exception("could not follow the log; it is read again from the beginning")
                self._report_error(describe_error(error))

    def _report_error(self, error: str) -> None:
        self.error = error
        self._on_change()
        self._closing.wait(_RETRY_S)

    def _follow(self) -> None:
        """Read the log from the beginning until `close`; a change of the log raises."""
        epoch = str(hub_status(self._link, _STATUS_S).log_id)
        with subscribe(start="earliest", link=self._link) as inbox:
            with self.lock:
                self.boards.clear()
                self.epoch, self.offset, self.caught_up = epoch, BEGINNING, False
            self.error = ""
            while not self._closing.is_set():
                self._apply_records(inbox)

    def _apply_records(self, inbox: Subscriber[events.AnyEvent]) -> None:
        records = inbox.records(_FETCH_S)
        with self.lock:
            for record in records:
                try:
                    self._apply(record.event, record.offset)
                except msgspec.DecodeError:
                    continue
                finally:
                    self.offset = record.offset
            caught_up_before = self.caught_up
            self.caught_up = caught_up_before or inbox.caught_up
        if records or caught_up_before != self.caught_up:
            self._on_change()

    def _apply(self, event: events.AnyEvent, offset: int) -> None:
        if isinstance(event, events.UnknownEvent):
            study = event.data.get("study")
            name = study if isinstance(study, str) else ""
        else:
            name, self._replayed_at = event.study, event.at
        if not name:  # the loss of a worker that serves any study
            for board in self.boards.values():
                if board.view.state != "finished":
                    board.apply(event, offset)
            return
        if name not in self.boards:
            self.boards[name] = Board(name, self._now)
        self.boards[name].apply(event, offset)

    def _now(self) -> float:
        """Return the current time; while the log is replayed, the time of the newest event."""
        return time.time() if self.caught_up else self._replayed_at
