"""Access control of the live page: host names, log-in, and requests from other sites."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_OPEN_PATHS = frozenset({"/login", "/static/monitor.css"})
_LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "[::1]")
_LONGEST_HOST = 255  # characters of a host name in an answer
_SECURITY_HEADERS = {
    # Plotly adds a style sheet to the page.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; connect-src 'self'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data:; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


class Access:
    """Access rules of a monitor.

    Args:
        token: Token to log in with; None where everybody on this machine may see the page.
        loopback: Whether only this machine can reach the page.
    """

    def __init__(self, token: str | None, *, loopback: bool) -> None:
        self._token = token
        # On loopback another site could point a host name of that site at this machine (DNS
        # rebinding); a request under such a name is refused.
        self.allowed_hosts = _LOOPBACK_HOSTS if loopback else ("*",)
        self.action_token = secrets.token_urlsafe(24)
        """Token that the page gets, and sends with each action."""
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
            return "the request comes from another site"
        if request.headers.get("sec-fetch-site", "same-origin") != "same-origin":
            return "the request comes from another site"
        action_token = request.headers.get("x-trialbus-token", "")
        if not hmac.compare_digest(action_token.encode(), self.action_token.encode()):
            return "the request lacks the page's token; load the page again"
        return None


class AccessMiddleware:
    """ASGI middleware that checks host name and log-in, and adds security headers to responses."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on to the application, or refuse a wrong host name or a missing log-in."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_SECURITY_HEADERS)
            await send(message)

        connection = HTTPConnection(scope)
        answer: ASGIApp = self._app
        if not await self._is_allowed_host(scope):
            answer = _refuse_host(connection)
        elif scope["path"] not in _OPEN_PATHS and not self._access.is_logged_in(connection):
            answer = (
                RedirectResponse("/login", 303)
                if scope["path"] == "/"
                else JSONResponse({"error": "log in first"}, 401)
            )
        await answer(scope, receive, send_with_headers)

    async def _is_allowed_host(self, scope: Scope) -> bool:
        """Return whether Starlette's host check passes a request on."""
        allowed = False

        async def accept(_scope: Scope, _receive: Receive, _send: Send) -> None:
            nonlocal allowed
            allowed = True

        async def receive() -> Message:
            return {"type": "http.disconnect"}

        async def drop(_message: Message) -> None:
            """Drop the refusal, which does not explain itself."""

        hosts = self._access.allowed_hosts
        check = TrustedHostMiddleware(accept, allowed_hosts=hosts, www_redirect=False)
        await check(scope, receive, drop)
        return allowed


def _refuse_host(connection: HTTPConnection) -> Response:
    host = connection.headers.get("host", "")[:_LONGEST_HOST]
    _, port = connection.scope["server"]
    return PlainTextResponse(
        f"The live page does not answer to the host name {host!a}, only to this machine's own "
        f"names. Open http://localhost:{port}/ instead, or start the monitor with monitor.host set "
        "to an address that other machines reach: then every host name is allowed, and the page "
        "asks for a token.\n",
        400,
    )


def _cookie_name(port: int | None) -> str:
    # Browsers keep one set of cookies for all ports of a host.
    return f"trialbus_monitor_{port or 80}"
