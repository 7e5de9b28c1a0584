"""Access control of the live page: log-in, and protection against requests from other sites."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_OPEN = frozenset({"/login", "/static/monitor.css"})
_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
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
    """Access rules of one monitor.

    Args:
        token: Token to log in with; None where everybody on this machine may see the page.
        loopback: Whether only this machine can reach the page.
    """

    def __init__(self, token: str | None, *, loopback: bool) -> None:
        self._token = token
        # On loopback another site's page could point its own host name at this machine
        # (DNS rebinding); the host names that the page answers to exclude it.
        self.allowed_hosts = _LOOPBACK if loopback else ("*",)
        self.act_token = secrets.token_urlsafe(
            24
        )  #: given to the page, which sends it with each action
        key = (token or "").encode()
        self._session = hmac.new(key, b"trialbus monitor", hashlib.sha256).hexdigest()

    def is_valid_token(self, token: str) -> bool:
        """Return whether a token is the monitor's."""
        return self._token is None or hmac.compare_digest(token.encode(), self._token.encode())

    def start_session(self, response: Response, port: int | None) -> Response:
        """Add the session cookie to a response and return the response."""
        name = _cookie_name(port)
        response.set_cookie(name, self._session, httponly=True, samesite="strict", path="/")
        return response

    def is_logged_in(self, connection: HTTPConnection) -> bool:
        """Return whether a connection carries the session cookie, or needs none."""
        if self._token is None:
            return True
        cookie = connection.cookies.get(_cookie_name(connection.url.port), "")
        return hmac.compare_digest(cookie.encode(), self._session.encode())

    def find_forgery(self, request: Request) -> str | None:
        """Return why a request may be another site's forgery; None for a request of the page."""
        origin = request.headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
            return "it comes from another site"
        if request.headers.get("sec-fetch-site", "same-origin") != "same-origin":
            return "it comes from another site"
        act_token = request.headers.get("x-trialbus-token", "")
        if not hmac.compare_digest(act_token.encode(), self.act_token.encode()):
            return "it lacks the page's token; load the page again"
        return None


class AccessMiddleware:
    """ASGI middleware that demands a log-in and adds the security headers to every response."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on to the application, or refuse a client that is not logged in."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        connection = HTTPConnection(scope)
        answer: ASGIApp = self._app
        if scope["path"] not in _OPEN and not self._access.is_logged_in(connection):
            answer = (
                RedirectResponse("/login", 303)
                if scope["path"] == "/"
                else JSONResponse({"error": "log in first"}, 401)
            )
        await answer(scope, receive, send_with_headers)


def _cookie_name(port: int | None) -> str:
    # Browsers keep one set of cookies for all ports of a host.
    return f"trialbus_monitor_{port or 80}"
