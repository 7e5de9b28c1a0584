"""An error of the live page is answered with the security headers, too."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from trialbus_services.monitor.access import Access, AccessMiddleware


async def fail(_scope: Scope, _receive: Receive, _send: Send) -> None:
    raise RuntimeError("a fault of the page")


def test_an_unforeseen_error_is_logged_and_answered_with_the_security_headers(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    scope: dict[str, Any] = {
        "type": "http",
        "method": "GET",
        "path": "/stream",
        "scheme": "http",
        "query_string": b"",
        "headers": [(b"host", b"localhost")],
        "server": ("localhost", 80),
    }
    middleware = AccessMiddleware(fail, Access("token", loopback=True, readable=True))
    asyncio.run(middleware(scope, receive, send))
    assert sent[0]["status"] == 500
    assert b"content-security-policy" in dict(sent[0]["headers"])
    assert "a fault of the page" not in sent[1]["body"].decode()
    assert "RuntimeError: a fault of the page" in caplog.text
