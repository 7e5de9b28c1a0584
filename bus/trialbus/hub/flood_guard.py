"""FloodGuard: the use that each peer makes of the hub in a second."""

from __future__ import annotations

import time
from collections.abc import Callable

from trialbus.protocol import frames, limits

_WINDOW_S = 1.0

# Costs are in bytes: each limit on a number in a second is a share of the bytes in a second.
_BUDGET = limits.BYTES_PER_SECOND
_FRAME_COST = _BUDGET // limits.FRAMES_PER_SECOND
_STATUS_ENTRY_COST = _BUDGET // limits.STATUS_ENTRIES_PER_SECOND
_REFUSAL_COST = _BUDGET // limits.REFUSALS_PER_SECOND - _FRAME_COST
_REQUEST_COSTS: dict[type[frames.ToHub], int] = {
    request: _BUDGET // per_second - _FRAME_COST
    for request, per_second in (
        (frames.AskStatus, limits.STATUS_REQUESTS_PER_SECOND),
        (frames.Forget, limits.FORGETS_PER_SECOND),
        (frames.Hello, limits.HELLOS_PER_SECOND),
        (frames.Fetch, limits.FETCHES_PER_SECOND),
        (frames.Commit, limits.COMMITS_PER_SECOND),
    )
}


class FloodGuard:
    """Adds up the use that each peer makes of the hub, and tells which peers use too much.

    A publisher sends its events in few large frames: the fastest uses a third of the budget. The
    messages of a peer that exceeds the budget are ignored until the second is over, which costs
    the hub little. A peer that still goes on fills the hub's memory and has to be disconnected.

    Args:
        clock: Seconds; a test passes another clock.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.reset()

    def admit(self, sender: bytes | str, size: int) -> bool:
        """Add a message to the use of the sender; return False if the message is to be ignored.

        Args:
            sender: The peer, or the key that it connected with.
            size: Bytes of the message.
        """
        used = self._used.get(sender, 0) + _FRAME_COST + size
        self._used[sender] = used
        self._total += _FRAME_COST + size
        if used <= _BUDGET:
            if self._total > limits.TOTAL_BYTES_PER_SECOND:
                self.is_exceeded = True
            return True
        n_ignored = self._n_ignored.get(sender, 0) + 1
        self._n_ignored[sender] = n_ignored
        if n_ignored > limits.IGNORED_PER_SECOND:
            self.is_exceeded = True
        return False

    def charge(self, sender: bytes | str, message: frames.ToHub) -> None:
        """Add the cost of the answer to a request."""
        cost = _REQUEST_COSTS.get(type(message))
        if cost is not None:
            self._add(sender, cost)

    def charge_status(self, sender: bytes | str, n_entries: int) -> None:
        """Add the cost of a status that lists sessions and durable names."""
        self._add(sender, n_entries * _STATUS_ENTRY_COST)

    def charge_refusal(self, sender: bytes | str) -> None:
        """Add the cost of a refusal."""
        self._add(sender, _REFUSAL_COST)

    def n_ignored(self, sender: bytes | str) -> int:
        """Return the number of messages of a sender that were ignored in this second."""
        return self._n_ignored.get(sender, 0)

    def flooding_senders(self) -> list[bytes | str]:
        """Return the peers or keys with ignored messages in this second."""
        return list(self._n_ignored)

    def begin_window(self) -> None:
        """Forget the use of all peers if the second is over. The hub calls this once a turn."""
        if self._clock() >= self._window_end:
            self.reset()

    def reset(self) -> None:
        """Forget the use of all peers."""
        self._window_end = self._clock() + _WINDOW_S
        self._used: dict[bytes | str, int] = {}
        self._n_ignored: dict[bytes | str, int] = {}
        self._total = 0
        self.is_exceeded = False  #: whether a peer has to be disconnected

    def _add(self, sender: bytes | str, cost: int) -> None:
        self._used[sender] = self._used.get(sender, 0) + cost
