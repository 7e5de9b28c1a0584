"""SIGTERM and SIGINT: an event that ends a service, and code that they do not interrupt."""

from __future__ import annotations

import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType

_NUMBERS = (signal.SIGTERM, signal.SIGINT)


def install_stop_event() -> threading.Event:
    """Install handlers of SIGTERM and SIGINT, in the main thread, and return a stop event."""
    stop = threading.Event()

    def handle(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    for number in _NUMBERS:
        signal.signal(number, handle)
    return stop


@contextmanager
def hold_signals() -> Generator[None]:
    """Let SIGTERM and SIGINT arrive after the block, so that none interrupts the block halfway.

    In another thread than the main thread, which handlers never interrupt, the block just runs.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[int] = []

    def handle(number: int, _frame: FrameType | None) -> None:
        arrived.append(number)

    replaced = {number: signal.signal(number, handle) for number in _NUMBERS}
    try:
        yield
    finally:
        for number, handler in replaced.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        for number in arrived:
            signal.raise_signal(number)
