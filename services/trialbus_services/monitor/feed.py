"""Feed: the monitor's one subscription, folded into boards by a thread of its own."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

import msgspec

from trialbus.client.admin import hub_status
from trialbus.client.link import Link
from trialbus.client.subscriber import Subscriber, subscribe
from trialbus.errors import HubRefusedError, HubUnavailableError, LogResetError, TrialbusError
from trialbus.messages import events
from trialbus_services.monitor.board import BEGINNING, Board, Json

logger = logging.getLogger(__name__)

_TURN_S = 0.5
_AGAIN_S = 2.0
_STATUS_S = 3.0


class Feed:
    """Every study of a bus, as its log tells it.

    `lock` is held while events are folded; hold it to read the boards. After the hub came back with
    another log, everything is told anew and `epoch` is another.

    Args:
        link: To the hub.
        on_change: Called, from another thread, when something was folded.
    """

    def __init__(self, link: Link, on_change: Callable[[], None]) -> None:
        self.lock = threading.Lock()
        self.boards: dict[str, Board] = {}
        self.epoch = ""
        self.offset = BEGINNING  #: of the newest event that was folded
        self.caught_up = False
        self.error = ""  #: why nothing comes, where the hub refuses to tell
        self._link = link
        self._on_change = on_change
        self._replayed_at = 0.0
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="monitor-feed", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._closing.set()
        self._thread.join()

    def since(self, study: str | None, offset: int) -> Json:
        """Return what changed after an offset: of all studies in a few figures, of one in full."""
        with self.lock:
            board = self.boards.get(study or "")
            changed = [b.summary() for b in self.boards.values() if b.changed > offset]
            return {
                "studies": changed,
                "study": board.since(offset) if board and board.changed > offset else None,
            }

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                self._follow()
            except LogResetError:
                logger.warning("the hub serves another log now; the page begins anew")
            except HubRefusedError as error:
                self._tell(f"{error}")
            except HubUnavailableError:
                continue  # the link tries on
            except TrialbusError as error:
                self._tell(f"{error}")
            except Exception as error:
                logger.exception("the log is read again from its beginning")
                self._tell(f"{type(error).__name__}: {error}")

    def _tell(self, error: str) -> None:
        self.error = error
        self._on_change()
        self._closing.wait(_AGAIN_S)

    def _follow(self) -> None:
        """Read the log from its beginning until it is another, or this closes."""
        epoch = str(hub_status(self._link, _STATUS_S).log_id)
        with subscribe(start="earliest", link=self._link) as inbox:
            with self.lock:
                self.boards.clear()
                self.epoch, self.offset, self.caught_up = epoch, BEGINNING, False
            self.error = ""
            while not self._closing.is_set():
                self._fold(inbox)

    def _fold(self, inbox: Subscriber[events.AnyEvent]) -> None:
        records = inbox.records(_TURN_S)
        with self.lock:
            for record in records:
                try:
                    self._apply(record.event, record.offset)
                except msgspec.DecodeError:
                    continue
                finally:
                    self.offset = record.offset
            was, self.caught_up = self.caught_up, self.caught_up or inbox.caught_up
        if records or was != self.caught_up:
            self._on_change()

    def _apply(self, event: events.AnyEvent, offset: int) -> None:
        if isinstance(event, events.UnknownEvent):
            study = event.data.get("study")
            name = study if isinstance(study, str) else ""
        else:
            name, self._replayed_at = event.study, event.at
        if not name:  # a worker of any study was lost, perhaps with trials of this one
            for board in self.boards.values():
                if board.view.state != "finished":
                    board.apply(event, offset)
            return
        if name not in self.boards:
            self.boards[name] = Board(name, self._now)
        self.boards[name].apply(event, offset)

    def _now(self) -> float:
        """Return the time; while the log is read again, the time of what is read."""
        return time.time() if self.caught_up else self._replayed_at
