"""A worker as a process on a real hub, with the test in the part of the optimizer."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import psutil

from support.processes import Bus, Managed
from support.until import until
from trialbus import Link, Publisher, subscribe
from trialbus.client.admin import hub_status
from trialbus.messages import events
from trialbus_services.config import settings

STUDY = "digits"
TTL_S = 1.5

# Prints the process ids of a training and its child, both of which outlast the test.
FAMILY = (
    sys.executable,
    "-c",
    (
        "import os, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print(os.getpid(), child.pid, flush=True)\n"
        "time.sleep(600)\n"
    ),
)

WORKER = (
    "import sys, logging, msgspec\n"
    "from trialbus_services.config import settings\n"
    "from trialbus_services.worker.main import run\n"
    "logging.basicConfig(level=logging.INFO)\n"
    "types = (settings.BusSettings, settings.WorkerSettings, settings.TrainerSettings)\n"
    "sections = [msgspec.json.decode(a, type=t) for a, t in zip(sys.argv[1:4], types)]\n"
    "sys.exit(run(*sections, study=sys.argv[4]))\n"
)

_E = TypeVar("_E", bound=events.Event)


class Optimizer:
    """An optimizer with decisions made by the test."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._link = Link(bus.endpoint)
        self._link.wait_connected(20)
        self._inbox = subscribe(link=self._link)
        self._publisher = Publisher(link=self._link)
        self._inbox.wait_ready()

    def close(self) -> None:
        self._inbox.close()
        self._publisher.close()
        self._link.close()

    def start_worker(
        self,
        command: Sequence[str] = (),
        *,
        function: str | None = None,
        slots: int = 1,
        study: str = STUDY,
        **options: Any,
    ) -> Managed:
        """Start a worker of a command or a function, with further settings as `options`."""
        sections = (
            settings.BusSettings(endpoint=self._bus.endpoint, dir=str(self._bus.directory / "log")),
            settings.WorkerSettings(name="w", slots=slots, ttl_s=TTL_S, grace_s=3, **options),
            settings.TrainerSettings(
                command=list(command), function=function, cwd=str(self.folder)
            ),
        )
        arguments = [msgspec.json.encode(section).decode() for section in sections]
        return self._bus.run("worker", [sys.executable, "-c", WORKER, *arguments, study])

    @property
    def folder(self) -> Path:
        """Working folder of the trainings."""
        path = self._bus.directory / "trainings"
        path.mkdir(exist_ok=True)
        return path

    def log(self, trial: int = 0, attempt: int = 0, study: str = STUDY) -> Path:
        logs = self._bus.directory / "log" / "logs" / "trials"
        return logs / study / f"{trial}-{attempt}.log"

    def wait_for_family(self, trial: int = 0, attempt: int = 0) -> list[int]:
        """Wait until a training has printed the ids of its processes, and return the ids."""
        log = self.log(trial, attempt)

        def printed() -> list[int]:
            line, end, _ = (log.read_text() if log.exists() else "").partition("\n")
            return [int(pid) for pid in line.split()] if end else []

        return until(printed, 20, "the training's first line")

    def receive(self, type_: type[_E], timeout_s: float = 20.0) -> _E:
        """Return the next event of a type, and skip events of other types."""
        deadline = time.monotonic() + timeout_s
        while not isinstance(event := self.next(deadline - time.monotonic()), type_):
            pass
        return event

    def next(self, timeout_s: float = 20.0) -> events.AnyEvent:
        """Return the next event of any type."""
        event = self._inbox.next(timeout_s)
        assert event is not None, "no further event"
        return event

    def publish(self, event: events.Event) -> None:
        self._publisher.publish(event)

    def assign(
        self,
        request: events.TrialRequested,
        trial: int = 0,
        *,
        attempt: int = 0,
        study: str = STUDY,
        timeout_s: float | None = None,
        silence_s: float | None = None,
    ) -> events.TrialAssigned:
        assigned = events.TrialAssigned(
            study=study,
            trial=trial,
            attempt=attempt,
            request=request.request,
            session=request.session,
            params={"lr": 0.1},
            seed=7,
            budget=5,
            timeout_s=timeout_s,
            silence_s=silence_s,
        )
        self.publish(assigned)
        return assigned

    def read_waits(self) -> str:
        """Return what the hub's status says of waiting slots."""
        workers = [s for s in hub_status(self._link).sessions if s.kind == "worker"]
        return str(workers[0].info.get("waits", ""))

    def list_sessions(self) -> list[str]:
        return [row.session for row in hub_status(self._link).sessions]


def have_ended(pids: Sequence[int]) -> bool:
    def is_alive(pid: int) -> bool:
        try:
            return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    return not any(map(is_alive, pids))
