"""Flood guard: how much of the hub one peer may use in a second."""

from __future__ import annotations

import time
from collections.abc import Callable

from trialbus.protocol import frames

#: What a peer may use in a second: bytes, and for each frame and request as much as it costs.
LIMIT = 128 << 20
#: What all peers together may use in a second; the hub cannot read more.
TOTAL_LIMIT = 8 * LIMIT
#: So many messages of a peer beyond its limit are read and ignored, before it is disconnected.
MAX_IGNORED = 2_000

_WINDOW_S = 1.0
_FRAME = 10_000  # at most some 13,000 frames a second
# Divided by how many of them a peer may send in a second.
_REQUEST: dict[type[frames.ToHub], int] = {
    frames.AskStatus: LIMIT // 200,
    frames.Forget: LIMIT // 200,
    frames.Hello: LIMIT // 2000,
    frames.Fetch: LIMIT // 4000,
    frames.Commit: LIMIT // 4000,
}
_REFUSAL = LIMIT // 1000


class FloodGuard:
    """Adds up what each peer uses, and tells when one uses more than anybody needs to.

    A publisher sends its events in few large frames: the fastest uses a third of the limit. Whoever
    exceeds it is ignored until the second is over, which costs the hub little. Whoever goes on in
    spite of it fills the hub's memory, and has to be disconnected.

    Args:
        clock: Seconds; a test passes its own.

    Attributes:
        is_exceeded: Whether somebody has to be disconnected.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.reset()

    def admit(self, sender: bytes | str, size: int) -> bool:
        """Count a message; return False if it is to be ignored.

        Args:
            sender: The peer, or the key that it connected with.
            size: Bytes of the message.
        """
        used = self._used.get(sender, 0) + _FRAME + size
        self._used[sender] = used
        self._total += _FRAME + size
        if used <= LIMIT:
            if self._total > TOTAL_LIMIT:
                self.is_exceeded = True
            return True
        ignored = self._ignored.get(sender, 0) + 1
        self._ignored[sender] = ignored
        if ignored > MAX_IGNORED:
            self.is_exceeded = True
        return False

    def charge(self, sender: bytes | str, message: frames.ToHub | None) -> None:
        """Count what it costs to answer a request, or to refuse a message (None)."""
        cost = _REFUSAL if message is None else _REQUEST.get(type(message))
        if cost is not None:
            self._used[sender] = self._used.get(sender, 0) + cost

    def flooding_senders(self) -> list[bytes | str]:
        """Return the peers or keys whose messages are ignored in this second."""
        return list(self._ignored)

    def begin_window(self) -> None:
        """Forget what was used, if the second is over. The hub calls this once a turn."""
        if self._clock() >= self._window_end:
            self.reset()

    def reset(self) -> None:
        """Forget what was used."""
        self._window_end = self._clock() + _WINDOW_S
        self._used: dict[bytes | str, int] = {}
        self._ignored: dict[bytes | str, int] = {}
        self._total = 0
        self.is_exceeded = False
