"""World: the clock, the order of steps, the chance and the faults of one simulation.

Everything that happens is drawn from one seed and ordered by simulated time, in one thread.
"""

from __future__ import annotations

import heapq
import random
import zlib
from collections import Counter
from collections.abc import Callable

_EPOCH = 1_700_000_000.0
_STEP_S = 1e-4  # the shortest time between two steps of a party


class Violation(Exception):  # noqa: N818 - what the simulation looks for
    """A guarantee was broken."""


class Crash(BaseException):
    """The process that runs dies at this point. No handler of an `Exception` may catch it."""


class World:
    """The state that all parties of a simulation share.

    Args:
        seed: Determines everything that happens.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = random.Random(seed)
        self.now = 1000.0  #: monotonic seconds
        self.n_steps = 0
        self.faults: Counter[str] = Counter()
        self.is_calm = False  #: whether faults have ended for good
        self.digest = 0  #: of all steps; equal for equal seeds
        self._steps: list[tuple[float, int, Callable[[], object]]] = []
        self._serial = 0

    def clock(self) -> float:
        return self.now

    def wall_clock(self) -> float:
        return _EPOCH + self.now

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def seconds(self, low: float, high: float) -> float:
        return self.random.uniform(low, high)

    def call_in(self, delay_s: float, step: Callable[[], object]) -> None:
        self.call_at(self.now + delay_s, step)

    def call_at(self, time: float, step: Callable[[], object]) -> None:
        self._serial += 1
        heapq.heappush(self._steps, (time, self._serial, step))

    def count_fault(self, name: str) -> None:
        self.faults[name] += 1
        self.note(name)

    def note(self, text: str) -> None:
        """Add what happened to the digest by which two runs are compared."""
        self.digest = zlib.crc32(f"{self.now} {text}".encode(), self.digest)

    def step(self) -> None:
        """Let happen what is due next."""
        time, serial, step = heapq.heappop(self._steps)
        self.now = max(self.now, time)
        self.n_steps += 1
        self.digest = zlib.crc32(b"%d" % serial, self.digest)
        step()

    def check(self, is_kept: bool, description: str) -> None:
        """Raise a violation if a guarantee is not kept."""
        if not is_kept:
            raise Violation(description)


class Stepper:
    """Calls a party's `step` once at the earliest of the times that were asked for."""

    def __init__(self, world: World, step: Callable[[], object]) -> None:
        self._world = world
        self._step = step
        self._due = float("inf")
        self._not_before = 0.0

    def wake(self, time: float) -> None:
        time = max(time, self._not_before, self._world.now + _STEP_S)
        if time < self._due:
            self._due = time
            self._world.call_at(time, lambda: self._run(time))

    def pause(self, until: float) -> None:
        """Let the party stand still for a time, as SIGSTOP does."""
        self._not_before = until
        self._due = float("inf")
        self.wake(until)

    def _run(self, time: float) -> None:
        if time == self._due:
            self._due = float("inf")
            self._step()
