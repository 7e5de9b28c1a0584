"""Termination: a handler that notices SIGTERM while a trial runs in this process."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any


class Termination:
    """Handler of SIGTERM until `release`: Slurm, Ray and workers end trainings with that signal.

    The script's handler is still called. Without one, `SystemExit(143)` ends the training, so
    that its `finally` blocks run. Python handles signals in the main thread only; in another
    thread the signal is not noticed.

    Attributes:
        is_requested: Whether the signal has arrived.
    """

    def __init__(self) -> None:
        self.is_requested = False
        self._previous_handler: Any = None
        self._is_installed = threading.current_thread() is threading.main_thread()
        if self._is_installed:
            handler = self._previous_handler = signal.getsignal(signal.SIGTERM)
            # None: the handler is not a Python function. SIG_IGN: the script ignores the signal.
            self._is_installed = handler is signal.SIG_DFL or callable(handler)
        if self._is_installed:
            signal.signal(signal.SIGTERM, self._handle)

    def release(self) -> None:
        """Restore the previous handler, unless the script has replaced this handler since."""
        is_restorable = self._is_installed and threading.current_thread() is threading.main_thread()
        if is_restorable and signal.getsignal(signal.SIGTERM) == self._handle:
            signal.signal(signal.SIGTERM, self._previous_handler)
        self._is_installed = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.is_requested = True
        if callable(self._previous_handler):
            self._previous_handler(number, frame)
        else:
            raise SystemExit(128 + number)
