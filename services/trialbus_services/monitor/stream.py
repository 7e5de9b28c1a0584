"""Server-sent events: the changes that each browser lacks, at most ten times a second."""

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
_SERVICES_INTERVAL_S = 2.0
_STATUS_S = 1.5
_WAKE_S = 5.0


class Ticker:
    """Wakes the waiting streams after a change, at most once per tick.

    All streams wake together, so that browsers at the same offset share an encoded message.
    """

    def __init__(self) -> None:
        self._changed = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._last_tick = 0.0

    def notify(self) -> None:
        """Announce a change; safe to call from any thread."""
        with contextlib.suppress(RuntimeError):  # the event loop is closed
            self._loop.call_soon_threadsafe(self._schedule_tick)

    def _schedule_tick(self) -> None:
        if self._timer is None:
            wait_s = max(0.0, self._last_tick + _TICK_S - self._loop.time())
            self._timer = self._loop.call_later(wait_s, self._tick)

    def _tick(self) -> None:
        self._timer, self._last_tick = None, self._loop.time()
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def wait(self, timeout_s: float) -> None:
        """Wait for the next tick with a change, at most `timeout_s`."""
        with contextlib.suppress(TimeoutError):
            # Not `wait_for`: before Python 3.12 it may swallow a cancellation.
            async with asyncio.timeout(timeout_s):
                await self._changed.wait()


class Streams:
    """Streams of server-sent events; to be created in the event loop."""

    def __init__(self, feed: Feed, link: Link, ticker: Ticker) -> None:
        self._feed = feed
        self._link = link
        self._ticker = ticker
        self._viewers = 0
        self._has_viewers = asyncio.Event()
        self._services: bytes = b"{}"
        self._cache_key: tuple[str, int] = ("", BEGINNING)
        self._cache: dict[tuple[str | None, int], bytes] = {}

    async def watch_services(self) -> None:
        """Request the hub's status regularly while a browser is connected."""
        while True:
            await self._has_viewers.wait()
            services = msgspec.json.encode(await self._ask_status())
            if services != self._services:
                self._services = services
                self._ticker.notify()
            await asyncio.sleep(_SERVICES_INTERVAL_S)

    async def _ask_status(self) -> Json:
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
        """Yield the messages for a browser, from the last received message on.

        Args:
            study: Name of the study that the browser shows in full; None for none.
            last_id: Id of the browser's last message, `epoch:offset`; empty for a new browser.
            hello: Content of the first message.
        """
        feed = self._feed
        epoch, _, last_offset = last_id.rpartition(":")
        offset = int(last_offset) if last_offset.isdecimal() else BEGINNING
        services = b""
        self._viewers += 1
        self._has_viewers.set()
        try:
            yield _create_message("hello", msgspec.json.encode(hello))
            while not feed.caught_up:
                await self._ticker.wait(_WAKE_S)
            epoch = epoch or feed.epoch
            while True:
                if services != self._services:
                    services = self._services
                    yield _create_message("services", services)
                if epoch != feed.epoch:
                    epoch, offset = feed.epoch, BEGINNING
                    yield _create_message("reset", b"{}")
                end, caught_up = feed.offset, feed.caught_up
                if caught_up and end > offset:
                    yield _create_message(
                        "changes", self._encode_changes(study, offset, end), f"{epoch}:{end}"
                    )
                    offset = end
                await self._ticker.wait(_WAKE_S)
        finally:
            self._viewers -= 1
            if not self._viewers:
                self._has_viewers.clear()

    def _encode_changes(self, study: str | None, offset: int, end: int) -> bytes:
        """Return the changes after an offset as JSON, encoded once for all browsers."""
        cache_key = (self._feed.epoch, end)
        if cache_key != self._cache_key:
            self._cache_key = cache_key
            self._cache.clear()
        key = (study, offset)
        if key not in self._cache:
            self._cache[key] = msgspec.json.encode(self._feed.get_changes(study, offset))
        return self._cache[key]


def _create_message(event: str, data: bytes, id_: str | None = None) -> ServerSentEvent:
    return ServerSentEvent(
        data=data.decode(), event=event, id=id_, retry=500 if event == "hello" else None
    )


def _get_optimizer_status(session: SessionStatus) -> OptimizerStatus | None:
    return from_info(session.info) if session.kind == "optimizer" else None
