"""Kill and pause the processes of a bus, over and over, and count lost and repeated events."""

from __future__ import annotations

import random
import signal
import sqlite3
import sys
import time
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

from chaos import forgetful_hub, publisher, subscriber
from support.processes import Bus, Managed

_PUBLISHERS = 4
_SUBSCRIBERS = 2
_SETTLE_S = 60.0
_BETWEEN_LONG_PAUSES_S = 5.0
_STRANDED = 20  # events

#: Longer than ZeroMQ takes to give up a connection: a heartbeat every 5 s, 15 s for its answer.
LONG_STOP_S = 25.0


@dataclass
class Outcome:
    """Counts of a run; `missing` and `repeated` are summed over the subscribers."""

    kills: int = 0
    """SIGKILLs, each followed by a restart."""
    pauses: int = 0
    """SIGSTOPs for a moment, during which no process is killed."""
    long_pauses: int = 0
    """SIGSTOPs for longer than ZeroMQ keeps a silent connection; other processes are killed."""
    accepted: int = 0
    """Events whose `publish()` returned, in killed publishers too."""
    delivered: int = 0
    """Events that the first subscriber received."""
    missing: int = 0
    """Accepted events that a subscriber never received."""
    repeated: int = 0
    """Times a subscriber received an event again."""
    disordered: int = 0
    """Events that a subscriber received before an earlier event of the same publisher."""

    @property
    def is_harmless(self) -> bool:
        """Whether every accepted event reached every subscriber once and in order."""
        return self.missing == self.repeated == self.disordered == 0

    def __str__(self) -> str:
        return "  ".join(f"{name} {value}" for name, value in asdict(self).items())


class Chaos:
    """A bus whose processes are killed and paused.

    Args:
        bus: An empty folder.
        seed: Seed of the victims and times.
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
                    str(self._locate_received(i)),
                ],
            )
            for i in range(_SUBSCRIBERS)
        ]
        self._publishers = [self._start_publisher(slot) for slot in range(_PUBLISHERS)]
        self._sleeper: Managed | None = None  # the process in a long pause
        self._turn_ends = 0.0  # monotonic

    def run(
        self, kills: int, *, pause_s: float = 0.15, stop_s: float = 1.5, long_stops: bool = False
    ) -> Outcome:
        """Kill `kills` times, with a pause of some process every ninth time, and count.

        The first two kills leave events behind that only adoption can bring to the hub.
        With `long_stops`, hub, subscriber and publisher are meanwhile paused in turn for
        `LONG_STOP_S`.
        """
        self._strand_events()
        while self.outcome.kills < kills:
            time.sleep(pause_s * self._random.uniform(0.5, 1.5))  # the pace of the kills
            self._kill(self._random.choice(self._list_awake()))
            self.outcome.kills += 1
            if self.outcome.kills % 9 == 0:
                self._pause(stop_s)
            if long_stops:
                self._take_turns()
        if self._sleeper is not None:
            time.sleep(max(0.0, self._turn_ends - time.monotonic()))  # the rest of its pause
            self._take_turns()
        return self._settle()

    def _list_processes(self) -> list[Managed]:
        return [self._hub, *self._subscribers, *self._publishers]

    def _list_awake(self) -> list[Managed]:
        return [process for process in self._list_processes() if process is not self._sleeper]

    def _kill(self, victim: Managed) -> None:
        if victim in self._publishers:
            slot = self._publishers.index(victim)
            victim.kill()
            self._publishers[slot] = self._start_publisher(slot)
        else:
            victim.restart()

    def _strand_events(self) -> None:
        """Kill a publisher that has accepted events while no hub ran."""
        self._hub.kill()
        victim, name = self._publishers[0], self._names[0]
        n_required = self._count_accepted(name) + _STRANDED
        deadline = time.monotonic() + _SETTLE_S
        while self._count_accepted(name) < n_required:
            assert time.monotonic() < deadline, f"{name} accepts nothing"
            time.sleep(0.01)
        self._kill(victim)
        self._hub.restart()
        self.outcome.kills += 2

    def _pause(self, stop_s: float) -> None:
        victim = self._random.choice(self._list_awake())
        victim.signal(signal.SIGSTOP)
        time.sleep(stop_s)  # the pause
        victim.signal(signal.SIGCONT)
        self.outcome.pauses += 1

    def _take_turns(self) -> None:
        if time.monotonic() < self._turn_ends:
            return
        if self._sleeper is None:
            roles = [[self._hub], self._subscribers, self._publishers]
            role = roles[self.outcome.long_pauses % len(roles)]
            self._sleeper = self._random.choice(role)
            self._sleeper.signal(signal.SIGSTOP)
            self._turn_ends = time.monotonic() + LONG_STOP_S
        else:
            self._sleeper.signal(signal.SIGCONT)
            self._sleeper = None
            self._turn_ends = time.monotonic() + _BETWEEN_LONG_PAUSES_S
            self.outcome.long_pauses += 1

    def _start_publisher(self, slot: int) -> Managed:
        name = f"p{slot}-{len(self._names)}"
        self._names.append(name)
        command = [sys.executable, str(publisher.__file__), self._bus.endpoint, name]
        ledger = str(self._bus.directory / f"{name}.ledger")
        return self._bus.run(name, [*command, ledger, "0.002", self._adoption])

    def _settle(self) -> Outcome:
        for process in self._publishers:
            process.stop(30)
        accepted = {name: self._count_accepted(name) for name in self._names}
        self.outcome.accepted = sum(accepted.values())
        # Another publisher adopts the rings of the killed publishers.
        adopter = self._start_publisher(_PUBLISHERS)
        deadline = time.monotonic() + _SETTLE_S
        while self._count_missing(accepted) and time.monotonic() < deadline:
            time.sleep(0.2)
            if self._adoption == "off" and time.monotonic() > deadline - _SETTLE_S + 5:
                break
        adopter.stop(30)
        self.outcome.missing = self._count_missing(accepted)
        for i in range(_SUBSCRIBERS):
            with closing(sqlite3.connect(self._locate_received(i))) as db:
                query = "SELECT count(*), count(DISTINCT publisher || ' ' || step) FROM received"
                count, distinct = db.execute(query).fetchone()
                self.outcome.repeated += count - distinct
                self.outcome.disordered += db.execute(
                    "SELECT count(*) FROM (SELECT step, lag(step) OVER"
                    " (PARTITION BY publisher ORDER BY rowid) AS before FROM received)"
                    " WHERE step < before"
                ).fetchone()[0]
                if i == 0:
                    self.outcome.delivered = distinct
        return self.outcome

    def _count_missing(self, accepted: dict[str, int]) -> int:
        missing = 0
        for i in range(_SUBSCRIBERS):
            with closing(sqlite3.connect(self._locate_received(i))) as db:
                received = dict(
                    db.execute(
                        "SELECT publisher, count(DISTINCT step) FROM received GROUP BY publisher"
                    ).fetchall()
                )
            missing += sum(
                max(0, count - received.get(name, 0)) for name, count in accepted.items()
            )
        return missing

    def _count_accepted(self, name: str) -> int:
        path = self._bus.directory / f"{name}.ledger"
        return path.stat().st_size if path.exists() else 0

    def _locate_received(self, i: int) -> Path:
        return self._bus.directory / f"received-{i}.db"
