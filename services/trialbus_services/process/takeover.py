"""Takeover: a new service replaces a service of this host that died a moment ago."""

from __future__ import annotations

import contextlib
import os
import socket

from trialbus.client.admin import hub_status
from trialbus.client.link import Link
from trialbus.client.part_driver import Send
from trialbus.protocol import frames


def describe_process() -> dict[str, str]:
    """Return host and process id, by which a later service sees whether this process is alive."""
    return {"host": socket.gethostname(), "pid": str(os.getpid())}


def end_dead_sessions(link: Link, kind: str) -> None:
    """End the sessions of dead services of a kind that ran on this host.

    The hub would count a dead service as alive until the time-to-live of the session is over, and
    refuse a new service until then.

    Args:
        link: Connection to the hub.
        kind: Kind of the sessions, for example `optimizer`.

    Raises:
        HubUnavailableError: The hub does not answer.
    """
    for session in hub_status(link).sessions:
        info = session.info
        if session.kind != kind or info.get("host") != socket.gethostname():
            continue
        if not _is_alive(int(str(info.get("pid", 0)))):
            link.attach(_SessionEnd(session.session))


def _is_alive(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        try:
            os.kill(pid, 0)
        except PermissionError:
            return True
        return True
    return False


class _SessionEnd:
    """Part of a link that ends the session of a dead process."""

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
