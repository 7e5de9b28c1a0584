"""Notice that this process is told to end, while a trial runs in it."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any


class Termination:
    """From its making to `release`, notes SIGTERM: Slurm, Ray and workers end trainings with it.

    What the script does about the signal is still done. Where it does nothing, the training is left
    by `SystemExit(143)`, so that its `finally` blocks run. Only the main thread can do this; in
    another nothing is noted.

    Attributes:
        noted: Whether the signal has come.
    """

    def __init__(self) -> None:
        self.noted = False
        self._before: Any = None
        self._installed = threading.current_thread() is threading.main_thread()
        if self._installed:
            self._before = signal.getsignal(signal.SIGTERM)
            # None: something that is not Python's takes it. SIG_IGN: the script wants it so.
            self._installed = self._before is signal.SIG_DFL or callable(self._before)
        if self._installed:
            signal.signal(signal.SIGTERM, self._note)

    def release(self) -> None:
        """Leave the signal as it was found, unless somebody else has taken it in between."""
        mine = self._installed and threading.current_thread() is threading.main_thread()
        if mine and signal.getsignal(signal.SIGTERM) == self._note:
            signal.signal(signal.SIGTERM, self._before)
        self._installed = False

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.noted = True
        if callable(self._before):
            self._before(number, frame)
        else:
            raise SystemExit(128 + number)
