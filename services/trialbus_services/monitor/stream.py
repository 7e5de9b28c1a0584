"""Server-sent events: browsers are sent, ten times a second at most, what they do not know yet."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import msgspec
from sse_starlette import ServerSentEvent

from trialbus.client.admin import hub_status
from trialbus.client.link import Link
from trialbus.errors import TrialbusError
from trialbus.protocol.status import SessionStatus
from trialbus_services.monitor.board import BEGINNING, Json
from trialbus_services.monitor.feed import Feed
from trialbus_services.optimizer.status import OptimizerStatus, from_info

_TICK_S = 0.1
_SERVICES_S = 2.0
_STATUS_S = 1.5
_ALIVE_S = 5.0


class Ticker:
    """Wakes everybody who waits when something changed, at most once in a tick.

    All browsers wake together, so that what one is sent can be sent to all.
    """

    def __init__(self) -> None:
        self._changed = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._due: asyncio.TimerHandle | None = None
        self._last = 0.0

    def notify(self) -> None:
        """Say that something changed. Call it from any thread."""
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._schedule)

    def _schedule(self) -> None:
        if self._due is None:
            wait_s = max(0.0, self._last + _TICK_S - self._loop.time())
            self._due = self._loop.call_later(wait_s, self._tick)

    def _tick(self) -> None:
        self._due, self._last = None, self._loop.time()
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def wait(self, timeout_s: float) -> None:
        """Wait for the next tick in which something changed."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), timeout_s)


class Streams:
    """What browsers are sent. Made in the event loop."""

    def __init__(self, feed: Feed, link: Link, ticker: Ticker) -> None:
        self._feed = feed
        self._link = link
        self._ticker = ticker
        self._viewers = 0
        self._watched = asyncio.Event()  # somebody looks
        self._services: bytes = b"{}"
        self._cached_at: tuple[str, int] = ("", BEGINNING)
        self._cache: dict[tuple[str | None, int], bytes] = {}

    async def watch_services(self) -> None:
        """Keep an eye on the hub and who is connected to it, as long as somebody looks."""
        while True:
            await self._watched.wait()
            services = msgspec.json.encode(await self._ask())
            if services != self._services:
                self._services = services
                self._ticker.notify()
            await asyncio.sleep(_SERVICES_S)

    async def _ask(self) -> Json:
        try:
            status = await asyncio.to_thread(hub_status, self._link, _STATUS_S)
        except TrialbusError:
            return {"connected": False, "error": self._feed.error}
        return {
            "connected": True,
            "error": self._feed.error,
            "role": status.role,
            "sessions": [
                {
                    "kind": session.kind,
                    "name": session.name,
                    "study": session.study,
                    "info": session.info,
                    "optimizer": _get_optimizer_status(session),
                }
                for session in status.sessions
                if session.kind not in ("trainer", "monitor")
            ],
        }

    async def send(
        self, study: str | None, last_id: str, hello: Json
    ) -> AsyncIterator[ServerSentEvent]:
        """Yield what a browser is sent, from where it was on.

        Args:
            study: The study it wants in full.
            last_id: Id of the last message it got, `epoch:offset`; empty for none.
            hello: What it is told first.
        """
        feed = self._feed
        epoch, _, number = last_id.rpartition(":")
        offset = int(number) if number.isdecimal() else BEGINNING
        services = b""
        self._viewers += 1
        self._watched.set()
        try:
            yield _message("hello", msgspec.json.encode(hello))
            while not feed.caught_up:
                await self._ticker.wait(_ALIVE_S)
            epoch = epoch or feed.epoch
            while True:
                if services != self._services:
                    services = self._services
                    yield _message("services", services)
                if epoch != feed.epoch:
                    epoch, offset = feed.epoch, BEGINNING
                    yield _message("reset", b"{}")
                end, caught_up = feed.offset, feed.caught_up
                if caught_up and end > offset:
                    yield _message("delta", self._since(study, offset, end), f"{epoch}:{end}")
                    offset = end
                await self._ticker.wait(_ALIVE_S)
        finally:
            self._viewers -= 1
            if not self._viewers:
                self._watched.clear()

    def _since(self, study: str | None, offset: int, end: int) -> bytes:
        """Return what changed after an offset; the same for all who were there."""
        now = (self._feed.epoch, end)
        if now != self._cached_at:
            self._cached_at = now
            self._cache.clear()
        key = (study, offset)
        if key not in self._cache:
            self._cache[key] = msgspec.json.encode(self._feed.since(study, offset))
        return self._cache[key]


def _message(event: str, data: bytes, id_: str | None = None) -> ServerSentEvent:
    return ServerSentEvent(
        data=data.decode(), event=event, id=id_, retry=500 if event == "hello" else None
    )


def _get_optimizer_status(session: SessionStatus) -> OptimizerStatus | None:
    return from_info(session.info) if session.kind == "optimizer" else None
