"""Ask a hub for its counters and sessions, or to forget what is not needed any more."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from trialbus.client.link import Link, Send
from trialbus.errors import HubRefusedError, HubUnavailableError
from trialbus.protocol import frames
from trialbus.protocol.status import HubStatus

_ASK_AGAIN_S = 1.0


def hub_status(link: Link, timeout_s: float = 5.0) -> HubStatus:
    """Return the state of the hub: its sessions, durable names and counters.

    Raises:
        HubUnavailableError: It did not answer within `timeout_s` seconds.

    Example:
        >>> with Link() as link:  # doctest: +SKIP
        ...     hub_status(link).sessions
    """
    answer = _ask(link, frames.AskStatus, timeout_s)
    assert isinstance(answer, frames.Status)
    return answer.status


def forget_study(link: Link, study: str, *, force: bool = False, timeout_s: float = 5.0) -> None:
    """Let the hub remove the events of a finished study from its log.

    Returns when the hub begins with it; `hub_status` shows when it is done.

    Args:
        link: To the hub.
        study: Its name.
        force: Also remove what durable names have not read yet.
        timeout_s: Seconds to wait for the answer.

    Raises:
        HubRefusedError: The study runs, is not there, or somebody has not read it yet.
        HubUnavailableError: The hub did not answer within `timeout_s` seconds.
    """
    _ask(link, lambda request: frames.Forget(request, study=study, force=force), timeout_s)


def forget_name(link: Link, name: str, timeout_s: float = 5.0) -> None:
    """Let the hub forget a durable name, so that it holds nothing back any more.

    Raises:
        HubRefusedError: There is no such name.
        HubUnavailableError: The hub did not answer within `timeout_s` seconds.
    """
    _ask(link, lambda request: frames.Forget(request, name=name), timeout_s)


def _ask(link: Link, question: Callable[[int], frames.ToHub], timeout_s: float) -> frames.ToClient:
    asking = _Question(link, question)
    link.attach(asking)
    try:
        if not asking.done.wait(timeout_s) or asking.answer is None:
            raise HubUnavailableError(link.endpoint, timeout_s)
    finally:
        link.detach(asking)
    if isinstance(asking.answer, frames.Refused):
        raise HubRefusedError(asking.answer.code, asking.answer.reason)
    return asking.answer


class _Question:
    def __init__(self, link: Link, question: Callable[[int], frames.ToHub]) -> None:
        self.done = threading.Event()
        self.answer: frames.Status | frames.Forgotten | frames.Refused | None = None
        self._request = link.next_request()
        self._question = question(self._request)

    def on_welcome(self, welcome: frames.Welcome) -> None:
        return

    def on_frame(self, frame: frames.ToClient) -> None:
        match frame:
            case frames.Status() | frames.Forgotten() if frame.request == self._request:
                self.answer = frame
            case frames.Refused() if frame.about == self._request:
                self.answer = frame
            case _:
                return
        self.done.set()

    def work(self, send: Send, now: float) -> float | None:
        if self.done.is_set():
            return None
        send(self._question)
        return time.monotonic() + _ASK_AGAIN_S

    def on_close(self) -> None:
        return
