"""Wait for a condition with a deadline."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

_T = TypeVar("_T")
_PAUSE_S = 0.02


def until(
    predicate: Callable[[], _T], timeout_s: float = 10.0, describe: str = "the condition"
) -> _T:
    """Return the first true value of `predicate`, or fail after `timeout_s` seconds."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = predicate()
        if value:
            return value
        assert time.monotonic() < deadline, f"{describe} was not met within {timeout_s:g} s"
        time.sleep(_PAUSE_S)


async def until_async(
    predicate: Callable[[], _T], timeout_s: float = 10.0, describe: str = "the condition"
) -> _T:
    """As `until`, letting other tasks run."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = predicate()
        if value:
            return value
        assert time.monotonic() < deadline, f"{describe} was not met within {timeout_s:g} s"
        await asyncio.sleep(_PAUSE_S)
