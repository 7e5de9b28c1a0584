"""Ask a hub for its counters and sessions."""

from __future__ import annotations

import threading
import time
from typing import Any

from trialbus import wire
from trialbus.errors import HubUnavailableError
from trialbus.link import Link, Send

_ASK_AGAIN_S = 1.0


def hub_status(link: Link, timeout_s: float = 5.0) -> dict[str, Any]:
    """Return what the hub says of itself; the keys are listed in docs/protocol.md.

    Raises:
        HubUnavailableError: It did not answer within `timeout_s` seconds.

    Example:
        >>> with Link() as link:  # doctest: +SKIP
        ...     hub_status(link)["sessions"]
    """
    question = _Question(link)
    link.attach(question)
    try:
        if not question.answered.wait(timeout_s):
            raise HubUnavailableError(link.endpoint, timeout_s)
        return question.status
    finally:
        link.detach(question)


class _Question:
    def __init__(self, link: Link) -> None:
        self.answered = threading.Event()
        self.status: dict[str, Any] = {}
        self._request = link.next_request()

    def on_welcome(self, welcome: wire.Welcome) -> None:
        return

    def on_frame(self, frame: wire.ToClient) -> None:
        if isinstance(frame, wire.Status) and frame.request == self._request:
            self.status = frame.status
            self.answered.set()

    def work(self, send: Send, now: float) -> float | None:
        if self.answered.is_set():
            return None
        send(wire.AskStatus(self._request))
        return time.monotonic() + _ASK_AGAIN_S

    def on_close(self) -> None:
        return
