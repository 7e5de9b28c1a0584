"""SIGTERM and SIGINT as an event that ends a service."""

from __future__ import annotations

import signal
import threading
from types import FrameType


def install_stop_event() -> threading.Event:
    """Install handlers of SIGTERM and SIGINT, in the main thread, and return a stop event."""
    stop = threading.Event()

    def handle(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handle)
    return stop
