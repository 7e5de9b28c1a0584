"""The page of the protocol lists every limit with the value of the constant."""

from __future__ import annotations

import re
from pathlib import Path

from trialbus.protocol import limits

PAGE = Path(__file__).parents[2] / "docs" / "protocol.md"

ROWS = {
    "MAX_FRAME": ("frame", "{mib} MiB"),
    "MAX_RECEIVED": ("frame that is received at all", "{mib} MiB"),
    "MAX_EVENT": ("event's body", "{mib} MiB"),
    "MAX_NESTING": ("nesting of a body", "{n} levels are sure to be read"),
    "MAX_TOPIC": ("topic or pattern", "{n} characters"),
    "MAX_NAME": ("name, session id, text in `info`", "{n} characters"),
    "MAX_PUBLISHER": ("publisher id", "{n} bytes"),
    "MAX_NUMBER": ("integer", "2^{bits} - 1"),
    "MAX_INFO": ("`info`", "{n} entries"),
    "MAX_HELLO": ("`hello`", "{kib} KiB"),
    "MAX_TTL_MS": ("`ttl_ms`", "{n:,} (a day)"),
    "MAX_WAIT_MS": ("`wait_ms`", "{n:,}"),
    "OPEN_FETCHES_BYTES": ("open fetches of all connections in memory", "{mib} MiB"),
    "BATCH_EVENTS": ("answer to a fetch", "{n} events"),
    "BATCH_BYTES": ("bodies in an answer", "{kib} KiB"),
    "IN_FLIGHT": ("events of all publishers on the way", "{mib} MiB"),
    "MAX_WINDOW": ("`window` of an `ack`", "{mib} MiB"),
    "MIN_WINDOW": ("events on the way before the first `ack`", "{kib} KiB"),
    "PATTERNS": ("patterns of a fetch", "{n}"),
    "OPEN_FETCHES": ("open fetches of a connection", "{n}"),
    "SESSIONS_PER_CONNECTION": ("sessions of a connection", "{n:,}"),
    "SESSIONS": ("sessions in all", "{n:,}"),
    "DURABLE_NAMES": ("durable names in all", "{n:,}"),
    "NEW_PUBLISHERS_PER_MINUTE": ("new publishers of a connection in a minute", "{n:,}"),
    "BYTES_PER_SECOND": ("bytes", "{mib} MiB"),
    "FRAMES_PER_SECOND": ("frames", "{n:,}"),
    "HELLOS_PER_SECOND": ("`hello`", "{n:,}"),
    "FETCHES_PER_SECOND": ("`fetch`", "{n:,}"),
    "COMMITS_PER_SECOND": ("`commit`", "{n:,}"),
    "STATUS_REQUESTS_PER_SECOND": ("`ask_status`", "{n:,}"),
    "STATUS_ENTRIES_PER_SECOND": ("sessions and durable names in answers to it", "{n:,}"),
    "FORGETS_PER_SECOND": ("`forget`", "{n:,}"),
    "REFUSALS_PER_SECOND": ("refused frames", "{n:,}"),
    "IGNORED_PER_SECOND": ("ignored frames", "{n:,}"),
    "TOTAL_BYTES_PER_SECOND": ("bytes of all connections", "{gib} GiB"),
}


def constants() -> dict[str, int]:
    return {
        name: value for name, value in vars(limits).items() if name.isupper() and name[0] != "_"
    }


def test_the_page_lists_every_limit_with_its_value() -> None:
    (section,) = re.findall(r"^## Limits\n(.*?)^## ", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    rows = re.findall(r"^\| (.+?) \| (.+?) \|", section, re.MULTILINE)
    listed = [row for row in rows if row[1] != "at most"]
    expected = [
        (
            title,
            value.format(
                n=constant,
                kib=constant >> 10,
                mib=constant >> 20,
                gib=constant >> 30,
                bits=constant.bit_length(),
            ),
        )
        for name, constant in constants().items()
        for title, value in [ROWS[name]]
    ]
    assert sorted(listed) == sorted(expected)


def test_the_units_of_the_page_lose_nothing() -> None:
    for name, value in constants().items():
        _, text = ROWS[name]
        unit = {"{kib}": 1 << 10, "{mib}": 1 << 20, "{gib}": 1 << 30}.get(text.split(" ")[0], 1)
        assert value % unit == 0, name
