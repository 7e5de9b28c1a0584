"""Who may see the page, and who may act through it."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_OPEN = frozenset({"/login", "/static/monitor.css"})
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_HEADERS = {
    # Plotly writes rules into a style sheet of its own.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; connect-src 'self'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data:; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


class Access:
    """The rules.

    Args:
        token: What to log in with; None where everybody on this machine may look.
        loopback: Whether only this machine can reach the page. Then it answers to this machine's
            names only, or a page from elsewhere could give its own name this machine's address.
    """

    def __init__(self, token: str | None, *, loopback: bool) -> None:
        self._token = token
        self._loopback = loopback
        self.act_token = secrets.token_urlsafe(24)  #: handed to the page, sent with each act
        key = (token or "").encode()
        self._session = hmac.new(key, b"trialbus monitor", hashlib.sha256).hexdigest()

    def logs_in(self, token: str) -> bool:
        """Tell whether a token is the right one."""
        return self._token is None or hmac.compare_digest(token.encode(), self._token.encode())

    def admit(self, response: Response, port: int | None) -> Response:
        """Let whoever gets this response in from now on."""
        name = _cookie(port)
        response.set_cookie(name, self._session, httponly=True, samesite="strict", path="/")
        return response

    def knows(self, connection: HTTPConnection) -> bool:
        """Tell whether somebody is logged in, or need not be."""
        if self._token is None:
            return True
        shown = connection.cookies.get(_cookie(connection.url.port), "")
        return hmac.compare_digest(shown.encode(), self._session.encode())

    def answers_to(self, connection: HTTPConnection) -> bool:
        """Tell whether the page goes by the name it was asked for under."""
        host = urlsplit(f"//{connection.headers.get('host', '')}").hostname
        return not self._loopback or host in _LOOPBACK

    def forgery(self, request: Request) -> str | None:
        """Return why a request to act may come from another site's page; None if it does not."""
        origin = request.headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
            return "it comes from another site"
        if request.headers.get("sec-fetch-site", "same-origin") != "same-origin":
            return "it comes from another site"
        shown = request.headers.get("x-trialbus-token", "")
        if not hmac.compare_digest(shown.encode(), self.act_token.encode()):
            return "it lacks the page's token; load the page again"
        return None


class Guard:
    """ASGI middleware that applies the rules to every request."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer who may not come in, and pass on the others."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        connection = HTTPConnection(scope)
        answer: ASGIApp = self._app
        if not self._access.answers_to(connection):
            answer = PlainTextResponse("This page goes by the name localhost.\n", 421)
        elif scope["path"] not in _OPEN and not self._access.knows(connection):
            page = scope["path"] == "/"
            answer = (
                RedirectResponse("/login", 303)
                if page
                else JSONResponse({"error": "log in first"}, 401)
            )
        await answer(scope, receive, guarded)


def _cookie(port: int | None) -> str:
    # Browsers keep one set of cookies for all ports of a host.
    return f"trialbus_monitor_{port or 80}"
