"""Kill and pause everything on a bus, over and over, and count what became of every event."""

from __future__ import annotations

import random
import signal
import sqlite3
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

from chaos import forgetful_hub, publisher, subscriber
from support.processes import Bus, Managed

_PUBLISHERS = 4
_SUBSCRIBERS = 2
_SETTLE_S = 60.0


@dataclass
class Outcome:
    """What happened. `missing` and `repeated` are summed over the subscribers.

    Attributes:
        kills: SIGKILLs, each followed by a restart.
        pauses: SIGSTOPs for longer than a heartbeat.
        accepted: Events whose `publish()` returned, in killed publishers too.
        delivered: Events that the first subscriber saw.
        missing: Accepted events that a subscriber never saw.
        repeated: Times a subscriber saw an event again.
        disordered: Events a subscriber saw before an earlier one of the same publisher.
    """

    kills: int = 0
    pauses: int = 0
    accepted: int = 0
    delivered: int = 0
    missing: int = 0
    repeated: int = 0
    disordered: int = 0

    def __str__(self) -> str:
        return "  ".join(f"{name} {value}" for name, value in asdict(self).items())


class Chaos:
    """A bus under fire.

    Args:
        bus: An empty folder.
        seed: Of what is killed when.
        adoption: Whether dead publishers' outboxes are adopted; off is a control that must fail.
        deduplication: Whether the hub drops repeats; off is a control that must fail.
    """

    def __init__(
        self, bus: Bus, *, seed: int, adoption: bool = True, deduplication: bool = True
    ) -> None:
        self._bus = bus
        self._random = random.Random(seed)
        self._adoption = "on" if adoption else "off"
        self._names: list[str] = []
        self.outcome = Outcome()
        if deduplication:
            self._hub = bus.hub()
        else:
            command = [sys.executable, str(forgetful_hub.__file__), "--endpoint", bus.endpoint]
            self._hub = bus.run("hub", [*command, "--dir", str(bus.directory / "log")])
        self._subscribers = [
            bus.run(
                f"subscriber-{i}",
                [
                    sys.executable,
                    str(subscriber.__file__),
                    bus.endpoint,
                    str(i),
                    str(self._seen(i)),
                ],
            )
            for i in range(_SUBSCRIBERS)
        ]
        self._publishers = [self._publisher(slot) for slot in range(_PUBLISHERS)]

    def run(self, kills: int, *, pause_s: float = 0.15, stop_s: float = 1.5) -> Outcome:
        """Kill `kills` times, with a pause of some process every ninth time, and count."""
        victims: list[Callable[[], None]] = [
            self._kill_hub,
            *(lambda i=i: self._subscribers[i].restart() for i in range(_SUBSCRIBERS)),
            *(lambda i=i: self._replace_publisher(i) for i in range(_PUBLISHERS)),
        ]
        while self.outcome.kills < kills:
            time.sleep(pause_s * self._random.uniform(0.5, 1.5))  # the pace of the fire
            self._random.choice(victims)()
            self.outcome.kills += 1
            if self.outcome.kills % 9 == 0:
                self._pause(stop_s)
        return self._settle()

    def _kill_hub(self) -> None:
        self._hub.restart()

    def _replace_publisher(self, slot: int) -> None:
        self._publishers[slot].kill()
        self._publishers[slot] = self._publisher(slot)

    def _pause(self, stop_s: float) -> None:
        victim = self._random.choice([self._hub, *self._subscribers, *self._publishers])
        victim.signal(signal.SIGSTOP)
        time.sleep(stop_s)  # longer than a heartbeat
        victim.signal(signal.SIGCONT)
        self.outcome.pauses += 1

    def _publisher(self, slot: int) -> Managed:
        name = f"p{slot}-{len(self._names)}"
        self._names.append(name)
        command = [sys.executable, str(publisher.__file__), self._bus.endpoint, name]
        ledger = str(self._bus.directory / f"{name}.ledger")
        return self._bus.run(name, [*command, ledger, "0.002", self._adoption])

    def _settle(self) -> Outcome:
        for process in self._publishers:
            process.stop(30)
        accepted = {name: self._ledger(name) for name in self._names}
        self.outcome.accepted = sum(accepted.values())
        # A publisher of its own, so that somebody is there to adopt.
        last = self._publisher(_PUBLISHERS)
        deadline = time.monotonic() + _SETTLE_S
        while self._missing(accepted) and time.monotonic() < deadline:
            time.sleep(0.2)
            if self._adoption == "off" and time.monotonic() > deadline - _SETTLE_S + 5:
                break
        last.stop(30)
        self.outcome.missing = self._missing(accepted)
        for i in range(_SUBSCRIBERS):
            with closing(sqlite3.connect(self._seen(i))) as db:
                query = "SELECT count(*), count(DISTINCT publisher || ' ' || step) FROM seen"
                count, distinct = db.execute(query).fetchone()
                self.outcome.repeated += count - distinct
                self.outcome.disordered += db.execute(
                    "SELECT count(*) FROM (SELECT step, lag(step) OVER"
                    " (PARTITION BY publisher ORDER BY rowid) AS before FROM seen)"
                    " WHERE step < before"
                ).fetchone()[0]
                if i == 0:
                    self.outcome.delivered = distinct
        return self.outcome

    def _missing(self, accepted: dict[str, int]) -> int:
        missing = 0
        for i in range(_SUBSCRIBERS):
            with closing(sqlite3.connect(self._seen(i))) as db:
                seen = dict(
                    db.execute(
                        "SELECT publisher, count(DISTINCT step) FROM seen GROUP BY publisher"
                    ).fetchall()
                )
            missing += sum(max(0, count - seen.get(name, 0)) for name, count in accepted.items())
        return missing

    def _ledger(self, name: str) -> int:
        path = self._bus.directory / f"{name}.ledger"
        return path.stat().st_size if path.exists() else 0

    def _seen(self, i: int) -> Path:
        return self._bus.directory / f"seen-{i}.db"
