"""The application behind the page."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
from collections.abc import AsyncGenerator
from functools import cache, partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import parse_qs

import msgspec
from sse_starlette import EventSourceResponse
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from trialbus.client.admin import hub_status
from trialbus.client.link import Link
from trialbus.client.publisher import Publisher
from trialbus.errors import HubRefusedError, HubUnavailableError
from trialbus.messages import events
from trialbus_services.monitor.access import Access, AccessMiddleware
from trialbus_services.monitor.actions import AnyAct, RefusedError, event_of
from trialbus_services.monitor.feed import Feed
from trialbus_services.monitor.stream import Streams, Ticker
from trialbus_services.monitor.trial_log import read_log

_STATIC = Path(__file__).parent / "static"
_PLOTLY = "package_data/plotly.min.js"  # in Plotly's package
_STATUS_S = 3.0
_FLUSH_S = 5.0
_LARGEST = 1 << 20  # bytes of a request
_WRONG_PAUSE_S = 1.0
_CODES: dict[type[Exception], int] = {
    msgspec.ValidationError: 400,
    msgspec.DecodeError: 400,
    HubRefusedError: 403,
    HubUnavailableError: 503,
    RefusedError: 409,
}


class Monitor:
    """Serves the page of one bus.

    Args:
        link: To the hub.
        logs: Folder with the logs of trials, where they were written on this machine.
        access: Who may come in.

    Example:
        >>> uvicorn.run(Monitor(link, Path(".trialbus/logs/trials"), access).app)  # doctest: +SKIP
    """

    def __init__(self, link: Link, logs: Path, access: Access) -> None:
        self._link = link
        self._logs = logs
        self._access = access
        self._feed: Feed
        self._streams: Streams
        self._publisher: Publisher | None = None
        self._one_login = asyncio.Lock()
        plotly = f"/plotly-{version('plotly')}.js"  # kept by browsers until there is another
        page = (_STATIC / "index.html").read_text(encoding="utf-8")
        self._page = page.replace("{plotly}", plotly)
        self.app = Starlette(
            routes=[
                Route("/", self._show_page),
                Route("/login", self._log_in, methods=["GET", "POST"]),
                Route("/stream", self._stream),
                Route("/act", self._act, methods=["POST"]),
                Route("/log", self._log),
                Route(plotly, self._plotly),
                Mount("/static", StaticFiles(directory=_STATIC)),
            ],
            middleware=[
                Middleware(
                    TrustedHostMiddleware, allowed_hosts=access.allowed_hosts, www_redirect=False
                ),
                Middleware(partial(AccessMiddleware, access=access)),
            ],
            exception_handlers=dict.fromkeys(_CODES, _refused),
            lifespan=self._live,
        )

    @contextlib.asynccontextmanager
    async def _live(self, _app: Starlette) -> AsyncGenerator[None]:
        ticker = Ticker()
        self._feed = Feed(self._link, ticker.notify)
        self._streams = Streams(self._feed, self._link, ticker)
        watching = asyncio.create_task(self._streams.watch_services())
        self._feed.start()
        try:
            yield
        finally:
            watching.cancel()
            self._feed.close()
            if self._publisher is not None:
                self._publisher.close(_FLUSH_S)

    async def _show_page(self, _request: Request) -> Response:
        return HTMLResponse(self._page)

    async def _plotly(self, _request: Request) -> Response:
        headers = {
            "Cache-Control": "private, max-age=31536000, immutable",
            "Content-Encoding": "gzip",
        }
        packed = await asyncio.to_thread(_packed_plotly)
        return Response(packed, media_type="text/javascript", headers=headers)

    async def _log_in(self, request: Request) -> Response:
        if request.method == "GET":
            page = (_STATIC / "login.html").read_text(encoding="utf-8")
            wrong = "That is not the token." if "wrong" in request.query_params else ""
            return HTMLResponse(page.replace("{wrong}", wrong))
        form = parse_qs((await _body(request)).decode(errors="replace"))
        (token, *_) = form.get("token", [""])
        async with self._one_login:  # whoever tries many tokens tries one after the other
            if self._access.is_valid_token(token):
                return self._access.start_session(RedirectResponse("/", 303), request.url.port)
            await asyncio.sleep(_WRONG_PAUSE_S)
        return RedirectResponse("/login?wrong", 303)

    async def _stream(self, request: Request) -> Response:
        hello = {"token": self._access.act_token, "endpoint": self._link.endpoint}
        study = request.query_params.get("study")
        # A browser repeats the id by itself; one that begins a new stream says it in the address.
        last = request.headers.get("last-event-id") or request.query_params.get("last", "")
        return EventSourceResponse(self._streams.send(study, last, hello), ping=15)

    async def _act(self, request: Request) -> Response:
        forged = self._access.find_forgery(request)
        if forged is not None:
            raise RefusedError(403, forged)
        act: AnyAct = msgspec.json.decode(await _body(request), type=AnyAct)
        status = await asyncio.to_thread(hub_status, self._link, _STATUS_S)
        if status.role != "service":
            role = status.role
            raise RefusedError(403, f"the monitor's key is of a {role}, which only looks")
        with self._feed.lock:
            event = event_of(act, self._feed.boards.get(act.study))
        done = await self._publish(event)
        return JSONResponse({"event": event.type, "sent": done}, 200 if done else 202)

    async def _publish(self, event: events.Event) -> bool:
        """Publish an event and tell whether the hub has it; else it gets it when it is back."""
        if self._publisher is None:
            self._publisher = Publisher(link=self._link)
        self._publisher.publish(event)
        return await asyncio.to_thread(self._publisher.flush, _FLUSH_S)

    async def _log(self, request: Request) -> Response:
        query = request.query_params
        trial, attempt, after = (query.get(key, "") for key in ("trial", "attempt", "after"))
        with self._feed.lock:
            board = self._feed.boards.get(query.get("study", ""))
            row = board.rows.get(int(trial)) if board and trial.isdecimal() else None
        if board is None or row is None:
            raise RefusedError(404, "there is no such trial")
        which = int(attempt) if attempt.isdecimal() else row.trial.attempt
        position = int(after) if after.isdecimal() else None
        try:
            text, end = await asyncio.to_thread(
                read_log, self._logs, board.name, row.number, which, position
            )
        except OSError:
            worker = f" {row.trial.worker}" if row.trial.worker else ""
            where = f"it lies where its worker{worker} runs"
            return JSONResponse({"why": f"No log of the trial on this machine: {where}."})
        return JSONResponse({"text": text, "end": end})


@cache
def _packed_plotly() -> bytes:
    package = find_spec("plotly")
    assert package is not None
    assert package.origin is not None  # the services need it
    return gzip.compress((Path(package.origin).parent / _PLOTLY).read_bytes(), 5)


async def _body(request: Request) -> bytes:
    """Return what a request brings; nothing of one that is too large."""
    found = b""
    async for chunk in request.stream():
        found += chunk
        if len(found) > _LARGEST:
            return b""
    return found


async def _refused(_request: Request, error: Exception) -> Response:
    code = error.code if isinstance(error, RefusedError) else _CODES[type(error)]
    return JSONResponse({"error": str(error)}, code)
