"""Requests to a hub: read the status, or remove a finished study or a durable name."""

from __future__ import annotations

import threading
from collections.abc import Callable

from trialbus.client.link import Link
from trialbus.client.part_driver import Send
from trialbus.errors import HubRefusedError
from trialbus.protocol import frames
from trialbus.protocol.status import HubStatus

_REPEAT_S = 1.0


def hub_status(link: Link, timeout_s: float = 5.0) -> HubStatus:
    """Return the status of the hub: sessions, durable names and counters.

    Raises:
        HubUnavailableError: The hub did not answer within `timeout_s` seconds.

    Example:
        >>> with Link() as link:  # doctest: +SKIP
        ...     hub_status(link).sessions
    """
    answer = _request_answer(link, frames.AskStatus, timeout_s)
    assert isinstance(answer, frames.Status)
    return answer.status


def forget_study(link: Link, study: str, *, force: bool = False, timeout_s: float = 5.0) -> None:
    """Let the hub remove the events of a finished study from the log.

    Returns when the hub begins to remove them; `hub_status` shows when the hub is done.

    Args:
        link: Link to the hub.
        study: Name of the study.
        force: Also remove what durable names have not read yet.
        timeout_s: Seconds to wait for the answer.

    Raises:
        HubRefusedError: The study runs or does not exist, or a durable name has not read all of it.
        HubUnavailableError: The hub did not answer within `timeout_s` seconds.
    """
    _request_answer(
        link, lambda request: frames.Forget(request, study=study, force=force), timeout_s
    )


def forget_name(link: Link, name: str, timeout_s: float = 5.0) -> None:
    """Let the hub forget a durable name, which then keeps no events in the log any more.

    Raises:
        HubRefusedError: There is no such name.
        HubUnavailableError: The hub did not answer within `timeout_s` seconds.
    """
    part = _Request(link, lambda request: frames.Forget(request, name=name))
    try:
        _wait_for_answer(part, link, timeout_s)
    except HubRefusedError as error:
        # The hub had forgotten the name when the request was repeated.
        if error.code != frames.CONFLICT or part.n_sent == 1:
            raise


def _request_answer(
    link: Link, make_frame: Callable[[int], frames.ToHub], timeout_s: float
) -> frames.ToClient:
    return _wait_for_answer(_Request(link, make_frame), link, timeout_s)


def _wait_for_answer(part: _Request, link: Link, timeout_s: float) -> frames.ToClient:
    link.attach(part)
    try:
        if not part.done.wait(timeout_s) or part.answer is None:
            raise link.make_unavailable_error(timeout_s)
    finally:
        link.detach(part)
    if isinstance(part.answer, frames.Refused):
        raise HubRefusedError(part.answer.code, part.answer.reason)
    return part.answer


class _Request:
    def __init__(self, link: Link, make_frame: Callable[[int], frames.ToHub]) -> None:
        self.done = threading.Event()
        self.answer: frames.Status | frames.Forgotten | frames.Refused | None = None
        self._request = link.next_request()
        self._frame = make_frame(self._request)
        self.n_sent = 0
        self._due = 0.0

    def on_welcome(self, welcome: frames.Welcome) -> None:
        """Send the request again at once: the previous connection may have lost it."""
        self._due = 0.0

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
        if now >= self._due:  # called earlier whenever another part of the link has work
            self.n_sent += send(self._frame)
            self._due = now + _REPEAT_S
        return self._due

    def on_close(self) -> None:
        return
