"""Web application of the live page: routes, start and end."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
from collections.abc import AsyncGenerator
from functools import cache, partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import parse_qs, urlencode

import msgspec
from sse_starlette import EventSourceResponse
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import (
    FileResponse,
    HTMLResponse,
    JSONResponse,
    RedirectResponse,
    Response,
)
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from trialbus.client.admin import hub_status
from trialbus.client.link import Link
from trialbus.client.publisher import Publisher
from trialbus.errors import HubRefusedError, HubUnavailableError
from trialbus.messages import codec, events
from trialbus_services.monitor.access import TOKEN_PARAMETER, Access, AccessMiddleware
from trialbus_services.monitor.actions import AnyAction, RefusedError, create_event
from trialbus_services.monitor.feed import Feed
from trialbus_services.monitor.stream import Streams, Ticker
from trialbus_services.monitor.trial_log import read_log
from trialbus_services.views import formats

_STATIC = Path(__file__).parent / "static"
_FORMATS = Path(str(formats.__file__)).with_suffix(".js")  # shared with the reporter
_PLOTLY = "package_data/plotly.min.js"  # in Plotly's package
_STATUS_S = 3.0
_FLUSH_S = 5.0
_MAX_BODY_BYTES = 1 << 20
_WRONG_TOKEN_PAUSE_S = 1.0
_LOG_IN = (
    "actions need the token: open the address with ?token=... that `trialbus monitor` printed at "
    "its start, or log in at /login with the token (monitor.token where that is set)"
)
_ACTIONS: msgspec.json.Decoder[AnyAction] = msgspec.json.Decoder(AnyAction)
_STATUS_CODES: dict[type[Exception], int] = {
    msgspec.ValidationError: 400,
    msgspec.DecodeError: 400,
    HubRefusedError: 403,
    HubUnavailableError: 503,
    RefusedError: 409,
}


class Monitor:
    """Web application that shows the studies of a bus and publishes users' actions.

    Args:
        link: Connection to the hub.
        logs: Folder with the logs of trials that ran on this machine.
        access: Access rules.

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
        self._login_lock = asyncio.Lock()
        plotly = (
            f"/plotly-{version('plotly')}.js"  # browsers keep the file until the version changes
        )
        page = (_STATIC / "index.html").read_text(encoding="utf-8")
        self._page = page.replace("{plotly}", plotly)
        self.app = Starlette(
            routes=[
                Route("/", self._show_page),
                Route("/login", self._log_in, methods=["GET", "POST"]),
                Route("/stream", self._open_stream),
                Route("/action", self._act, methods=["POST"]),
                Route("/log", self._show_log),
                Route(plotly, self._serve_plotly),
                Route("/static/formats.js", self._serve_formats),
                Mount("/static", StaticFiles(directory=_STATIC)),
            ],
            middleware=[Middleware(partial(AccessMiddleware, access=access))],
            exception_handlers=dict.fromkeys(_STATUS_CODES, _answer_error),
            lifespan=self._run,
        )

    @contextlib.asynccontextmanager
    async def _run(self, _app: Starlette) -> AsyncGenerator[None]:
        ticker = Ticker()
        self._feed = Feed(self._link, ticker.notify)
        self._streams = Streams(self._feed, self._link, ticker)
        status_task = asyncio.create_task(self._streams.watch_services())
        self._feed.start()
        try:
            yield
        finally:
            status_task.cancel()
            self._feed.close()
            if self._publisher is not None:
                self._publisher.close(_FLUSH_S)

    async def _show_page(self, request: Request) -> Response:
        query = request.query_params
        if TOKEN_PARAMETER not in query:
            return HTMLResponse(self._page)
        # The token leaves the address bar, and with it the history of the browser.
        rest = urlencode([item for item in query.multi_items() if item[0] != TOKEN_PARAMETER])
        return await self._try_token(request, query[TOKEN_PARAMETER], f"/?{rest}" if rest else "/")

    async def _serve_formats(self, _request: Request) -> Response:
        return FileResponse(_FORMATS)

    async def _serve_plotly(self, _request: Request) -> Response:
        headers = {
            "Cache-Control": "private, max-age=31536000, immutable",
            "Content-Encoding": "gzip",
        }
        script = await asyncio.to_thread(_compress_plotly)
        return Response(script, media_type="text/javascript", headers=headers)

    async def _log_in(self, request: Request) -> Response:
        if request.method == "GET":
            page = (_STATIC / "login.html").read_text(encoding="utf-8")
            wrong = "That is not the token." if "wrong" in request.query_params else ""
            return HTMLResponse(page.replace("{wrong}", wrong))
        form = parse_qs((await _read_body(request)).decode(errors="replace"))
        (token, *_) = form.get(TOKEN_PARAMETER, [""])
        return await self._try_token(request, token, "/")

    async def _try_token(self, request: Request, token: str, page: str) -> Response:
        """Start a session and redirect to a page if a token is right, else to the log-in."""
        async with self._login_lock:  # so that nobody tries many tokens at the same time
            if self._access.is_valid_token(token):
                return self._access.start_session(RedirectResponse(page, 303), request.url.port)
            await asyncio.sleep(_WRONG_TOKEN_PAUSE_S)
        return RedirectResponse("/login?wrong", 303)

    async def _open_stream(self, request: Request) -> Response:
        hello = {
            "logged_in": self._access.is_logged_in(request),
            "endpoint": self._link.endpoint,
        }
        study = request.query_params.get("study")
        # A browser that reconnects sends the id as a header; a page that opens a new stream sends
        # the id in the address.
        last_id = request.headers.get("last-event-id") or request.query_params.get("last", "")
        return EventSourceResponse(self._streams.send(study, last_id, hello), ping=15)

    async def _act(self, request: Request) -> Response:
        forgery = self._access.find_forgery(request)
        if forgery is not None:
            raise RefusedError(403, forgery)
        if not self._access.is_logged_in(request):
            raise RefusedError(401, _LOG_IN)
        action = codec.decode_with(_ACTIONS, await _read_body(request))
        status = await asyncio.to_thread(hub_status, self._link, _STATUS_S)
        if status.role != "service":
            raise RefusedError(403, f"the monitor's key is of a {status.role}, which may only read")
        with self._feed.lock:
            event = create_event(action, self._feed.boards.get(action.study))
        sent = await self._publish(event)
        return JSONResponse({"event": event.type, "sent": sent}, 200 if sent else 202)

    async def _publish(self, event: events.Event) -> bool:
        """Publish an event and return whether the hub acknowledged the event in time."""
        if self._publisher is None:
            self._publisher = Publisher(link=self._link)
        self._publisher.publish(event)
        return await asyncio.to_thread(self._publisher.flush, _FLUSH_S)

    async def _show_log(self, request: Request) -> Response:
        query = request.query_params
        trial, attempt, after = (query.get(key, "") for key in ("trial", "attempt", "after"))
        with self._feed.lock:
            board = self._feed.boards.get(query.get("study", ""))
            row = board.rows.get(int(trial)) if board and trial.isdecimal() else None
        if board is None or row is None:
            raise RefusedError(404, "there is no trial of that number in the study")
        attempt_number = int(attempt) if attempt.isdecimal() else row.trial.attempt
        position = int(after) if after.isdecimal() else None
        try:
            text, end = await asyncio.to_thread(
                read_log, self._logs, board.name, row.number, attempt_number, position
            )
        except OSError:
            worker = f" {row.trial.worker}" if row.trial.worker else ""
            reason = (
                f"No log of the trial on this machine: the log is where the worker{worker} runs."
            )
            return JSONResponse({"reason": reason})
        return JSONResponse({"text": text, "end": end})


@cache
def _compress_plotly() -> bytes:
    package = find_spec("plotly")
    assert package is not None
    assert package.origin is not None  # the services need it
    return gzip.compress((Path(package.origin).parent / _PLOTLY).read_bytes(), 5)


async def _read_body(request: Request) -> bytes:
    """Read the body of a request; return no bytes if the body is too large."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_BODY_BYTES:
            return b""
    return body


async def _answer_error(_request: Request, error: Exception) -> Response:
    code = error.code if isinstance(error, RefusedError) else _STATUS_CODES[type(error)]
    return JSONResponse({"error": str(error)}, code)
