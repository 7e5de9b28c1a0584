"""Interruption: SIGINT and SIGTERM end a study, and a second signal does not abandon services."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Sequence
from types import FrameType, TracebackType
from typing import Any


class Interruption:
    """Handlers of signals: the first signal interrupts, every later signal hurries the end.

    The handlers replace Python's own, or the system's, and only in the main thread; handlers that
    the program installed stay.

    Args:
        numbers: Signals that interrupt.
    """

    def __init__(self, numbers: Sequence[signal.Signals]) -> None:
        #: Function that is called at every signal after the first.
        self.hurry: Callable[[], object] | None = None
        self._numbers = numbers
        self._is_interrupted = False
        self._replaced: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            for number in self._numbers:
                if signal.getsignal(number) in (signal.default_int_handler, signal.SIG_DFL):
                    self._replaced[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._replaced.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if not self._is_interrupted:
            self._is_interrupted = True
            raise KeyboardInterrupt(number)
        if self.hurry is not None:
            self.hurry()
