"""Take the place of a service of this host that died a moment ago."""

from __future__ import annotations

import contextlib
import os
import socket

from trialbus.client.admin import hub_status
from trialbus.client.link import Link, Send
from trialbus.protocol import frames


def identity() -> dict[str, str]:
    """Return host and process id of this service, for a later one to find out whether it lives."""
    return {"host": socket.gethostname(), "pid": str(os.getpid())}


def dismiss_dead(link: Link, kind: str) -> None:
    """End the sessions of one kind whose processes ran on this host and have ended.

    The hub would count them as alive until their time-to-live is over, and let nobody in their
    place.

    Raises:
        HubUnavailableError: The hub does not answer.
    """
    for session in hub_status(link).sessions:
        info = session.info
        if session.kind != kind or info.get("host") != socket.gethostname():
            continue
        if not _lives(int(str(info.get("pid", 0)))):
            link.attach(_Farewell(session.session))


def _lives(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        try:
            os.kill(pid, 0)
        except PermissionError:
            return True
        return True
    return False


class _Farewell:
    """The part of a link that ends the session of a dead process."""

    def __init__(self, session: str) -> None:
        self._bye: frames.Bye | None = frames.Bye(session)

    def on_welcome(self, welcome: frames.Welcome) -> None:
        return

    def on_frame(self, frame: frames.ToClient) -> None:
        return

    def work(self, send: Send, now: float) -> float | None:
        if self._bye is not None and send(self._bye):
            self._bye = None
        return None

    def on_close(self) -> None:
        return
