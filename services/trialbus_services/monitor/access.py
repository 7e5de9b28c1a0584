"""Access control of the live page: host names, log-in, and requests from other sites."""

from __future__ import annotations

import hashlib
import hmac
import logging
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_OPEN_PATHS = frozenset({"/login", "/static/monitor.css"})
#: Parameter of the printed URL that carries the token.
TOKEN_PARAMETER = "token"  # noqa: S105 - a name
_LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "[::1]")
_LONGEST_HOST = 255  # characters of a host name in an answer
logger = logging.getLogger(__name__)

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
        token: Token to log in with.
        loopback: Whether only this machine can reach the page.
        readable: Whether the page may be read without the token; acting always needs the token.
    """

    def __init__(self, token: str, *, loopback: bool, readable: bool) -> None:
        self._token = token
        # On loopback another site could point a host name of that site at this machine (DNS
        # rebinding); a request under such a name is refused.
        self.allowed_hosts = _LOOPBACK_HOSTS if loopback else ("*",)
        self.readable = readable
        """Whether the page may be read without the token."""
        self._session = hmac.new(token.encode(), b"trialbus monitor", hashlib.sha256).hexdigest()

    def is_valid_token(self, token: str) -> bool:
        """Return whether a token is the monitor's."""
        return hmac.compare_digest(token.encode(), self._token.encode())

    def start_session(self, response: Response, port: int | None) -> Response:
        """Add the session cookie to a response and return the response."""
        name = _get_cookie_name(port)
        response.set_cookie(name, self._session, httponly=True, samesite="strict", path="/")
        return response

    def is_logged_in(self, connection: HTTPConnection) -> bool:
        """Return whether a connection carries the session cookie."""
        cookie = connection.cookies.get(_get_cookie_name(connection.url.port), "")
        return hmac.compare_digest(cookie.encode(), self._session.encode())

    def is_open(self, connection: HTTPConnection) -> bool:
        """Return whether a request may be answered: the log-in, or a path or page open to all."""
        path = connection.url.path
        has_token = path == "/" and TOKEN_PARAMETER in connection.query_params
        return self.readable or has_token or path in _OPEN_PATHS or self.is_logged_in(connection)

    def find_forgery(self, request: Request) -> str | None:
        """Return why a request may be another site's forgery; None for a request of the page."""
        origin = request.headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
            return "the request comes from another site"
        if request.headers.get("sec-fetch-site", "same-origin") != "same-origin":
            return "the request comes from another site"
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

        has_started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal has_started
            if message["type"] == "http.response.start":
                has_started = True
                MutableHeaders(scope=message).update(_SECURITY_HEADERS)
            await send(message)

        connection = HTTPConnection(scope)
        answer: ASGIApp = self._app
        if not await self._is_allowed_host(scope):
            answer = _refuse_host(connection)
        elif not self._access.is_open(connection):
            answer = (
                RedirectResponse("/login", 303)
                if scope["path"] == "/"
                else JSONResponse({"error": "log in first"}, 401)
            )
        try:
            await answer(scope, receive, send_with_headers)
        except Exception:
            # Starlette would answer outside of this middleware, and so without the headers.
            logger.exception("no answer to %s %s", scope["method"], scope["path"])
            if not has_started:
                error = JSONResponse({"error": "the page failed; its log says why"}, 500)
                await error(scope, receive, send_with_headers)

    async def _is_allowed_host(self, scope: Scope) -> bool:
        """Return whether Starlette's host check passes a request on."""
        allowed = False

        async def accept(_scope: Scope, _receive: Receive, _send: Send) -> None:
            nonlocal allowed
            allowed = True

        async def receive() -> Message:
            return {"type": "http.disconnect"}

        async def drop(_message: Message) -> None:
            """Drop the response of Starlette's refusal, which has no explanation."""

        hosts = self._access.allowed_hosts
        check = TrustedHostMiddleware(accept, allowed_hosts=hosts, www_redirect=False)
        await check(scope, receive, drop)
        return allowed


def _refuse_host(connection: HTTPConnection) -> Response:
    host = connection.headers.get("host", "")[:_LONGEST_HOST]
    _, port = connection.scope["server"]
    return PlainTextResponse(
        f"The live page does not serve the host name {host!a}, only this machine's own "
        f"names. Open http://localhost:{port}/ instead, or start the monitor with monitor.host set "
        "to an address that other machines reach: then every host name is allowed, and the page "
        "cannot be read without the token.\n",
        400,
    )


def _get_cookie_name(port: int | None) -> str:
    # Browsers keep one set of cookies for all ports of a host.
    return f"trialbus_monitor_{port or 80}"
