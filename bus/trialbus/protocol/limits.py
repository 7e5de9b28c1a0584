"""Limits of the hub on clients; docs/protocol.md lists and explains each limit.

The hub answers whatever exceeds a limit by a `refused` that names the limit. Limits of sizes hold
for every message alone. Limits of numbers are far above what a large installation needs, and every
client of a hub that restarts may come back at once.
"""

from __future__ import annotations

from typing import Final

_KIB: Final = 1 << 10
_MIB: Final = 1 << 20

# --- sizes ---
MAX_FRAME: Final = 8 * _MIB
"""Bytes of a frame."""
MAX_RECEIVED: Final = 16 * _MIB
"""Bytes of a frame that the hub can still answer by `refused`; it hangs up on a larger one."""
MAX_EVENT: Final = 1 * _MIB
"""Bytes of the body of an event."""
MAX_TOPIC: Final = 1024
"""Characters of a topic or a pattern; a study's name of `MAX_NAME` fits, each escaped."""
MAX_NESTING: Final = 100
"""Levels of arrays and maps in the body of an event that every hub and client can read."""
MAX_NAME: Final = 256
"""Characters of a name, of the id of a session, and of a text in `info`."""
MAX_PUBLISHER: Final = 64
"""Bytes of the id of a publisher."""
MAX_NUMBER: Final = (1 << 62) - 1
"""Largest offset, sequence number, request number and other integer of a frame."""
MAX_INFO: Final = 32
"""Entries in `info` of a session."""
MAX_HELLO: Final = 3 * _KIB
"""Bytes of a `hello`. The status of a hub with `SESSIONS` sessions fits into 64 MiB."""
MAX_TTL_MS: Final = 86_400_000
"""Milliseconds of a session's time-to-live: a day."""
MAX_WAIT_MS: Final = 60_000
"""Milliseconds that a fetch waits; a longer wait is cut, and not refused."""
OPEN_FETCHES_BYTES: Final = 128 * _MIB
"""Bytes of memory of the fetches of all connections that wait, and of those not read yet. Above
it, the fetches whose wait ends first are answered early, empty."""
BATCH_EVENTS: Final = 512
"""Events in one answer to a fetch, and in a `publish` of this package's client."""
BATCH_BYTES: Final = 256 * _KIB
"""Bytes of bodies after which an answer to a fetch ends."""
IN_FLIGHT: Final = 128 * _MIB
"""Bytes of events that all publishers together should have sent and not acknowledged."""
MAX_WINDOW: Final = 1 * _MIB
"""Most bytes of events that the hub allows a publisher to have sent and not acknowledged."""
MIN_WINDOW: Final = 32 * _KIB
"""Fewest of these bytes; what a publisher may send before the first `ack`."""

# --- numbers ---
PATTERNS: Final = 64
"""Patterns of a fetch."""
OPEN_FETCHES: Final = 64
"""Fetches of a connection that are not answered yet."""
SESSIONS_PER_CONNECTION: Final = 5_000
"""Sessions of a connection. A process may simulate thousands of trainers."""
SESSIONS: Final = 20_000
"""Sessions of all connections. Sessions that are known are never refused."""
DURABLE_NAMES: Final = 1_000
"""Durable names in all. They outlive connections: a limit per connection would bound nothing."""
NEW_PUBLISHERS_PER_MINUTE: Final = 10_000
"""Publishers that are new to the log, of a connection, in a minute. A connection that sends what
thousands of dead publishers left behind is slowed down, and not stopped for good."""

# --- use of the hub in a second ---
BYTES_PER_SECOND: Final = 128 * _MIB
"""Bytes of a connection."""
FRAMES_PER_SECOND: Final = 13_000
"""Frames of a connection."""
HELLOS_PER_SECOND: Final = 4_000
"""`hello` frames of a connection."""
FETCHES_PER_SECOND: Final = 4_000
"""`fetch` frames of a connection."""
COMMITS_PER_SECOND: Final = 4_000
"""`commit` frames of a connection."""
STATUS_REQUESTS_PER_SECOND: Final = 200
"""`ask_status` frames of a connection."""
STATUS_ENTRIES_PER_SECOND: Final = 100_000
"""Sessions and durable names in the answers to `ask_status` of a connection."""
FORGETS_PER_SECOND: Final = 200
"""`forget` frames of a connection."""
REFUSALS_PER_SECOND: Final = 1_000
"""Frames of a connection that are refused."""
IGNORED_PER_SECOND: Final = 2_000
"""Frames that are ignored, of a connection that used up its second, before the hub hangs up."""
TOTAL_BYTES_PER_SECOND: Final = 8 * BYTES_PER_SECOND
"""Bytes of all connections; the hub cannot read more."""
