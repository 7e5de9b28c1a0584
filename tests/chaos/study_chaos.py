"""Kill the processes of small studies at random, and compare accounts, log and database.

Each field is a folder with a hub and a few studies that run at the same time. In some fields hub,
optimizer, reporter and workers are services that somebody restarts, in others each `trialbus study`
starts and restarts what is missing. Every process may be killed, trainings and their guards,
fork servers and children, too.
"""

from __future__ import annotations

import dataclasses
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import optuna

import trialbus
from chaos import study_trainer
from chaos.process_tree import Descendant, adopt_orphans, bury_orphans, list_descendants
from chaos.study_accounts import Accounts, Comparison, Differences, read_accounts
from support.processes import Bus, Managed
from trialbus.client.subscriber import replay
from trialbus.messages import events

_STUDIES_PER_FIELD = 3
_KILLS_PER_STUDY = 12
# Between two kills the trainings write a number of bytes to their accounts, unless nothing runs.
_BETWEEN_KILLS = 800
_BETWEEN_KILLS_S = 5.0
_TOGETHER = 0.2  # share of the kills that another kill follows at once
_TRIALS = 8
_SLOTS = 2
_STEPS = 6
_STEP_S = 0.06
_POLL_S = 0.05
_RESTART_S = 0.3  # as a supervisor pauses before it starts a process again
_STANDSTILL_S = 60.0  # without a report; then the studies of a field count as stuck
_SETTLE_S = 30.0

#: How often a role is chosen, in shares; a process of the role is chosen at random then.
_SHARES = {
    "hub": 1.0,
    "optimizer": 2.0,
    "reporter": 1.0,
    "worker": 2.0,
    "study": 1.0,
    "guard": 2.0,
    "training": 4.0,
    "child": 2.0,
}


@dataclass
class Outcome:
    """Counts of a run; all but the first two must be 0."""

    kills: int = 0
    """SIGKILLs of processes of every kind."""
    reports: int = 0
    """Reports whose call returned in a training."""
    missing: int = 0
    """Reports that the log lacks, or that the database lacks although they count."""
    repeated: int = 0
    """Times a report stands in the log again."""
    altered: int = 0
    """Values in log or database that no training reported there, and params of no training."""
    trials_lost: int = 0
    """Trials that the database lacks."""
    trials_twice: int = 0
    """Attempts that ran or were handed out twice, and trials beyond the study's number."""
    trials_running: int = 0
    """Trials, or whole studies, without an end."""
    wrong_state: int = 0
    """Trials with another state than their training ended with, and wrong counts of studies."""
    processes_left: int = 0
    """Processes that live after everything has been stopped."""

    @property
    def is_harmless(self) -> bool:
        """Whether accounts, log and database agree, and nothing is left running."""
        return not any(dataclasses.astuple(self)[2:])

    def __str__(self) -> str:
        return "  ".join(f"{name} {value}" for name, value in dataclasses.asdict(self).items())


@dataclass(frozen=True)
class Study:
    """A small study, with the overrides of its command."""

    name: str
    overrides: list[str]

    @staticmethod
    def make(name: str, chance: random.Random) -> Study:
        """Make a study of a random kind."""
        pruner = chance.choice(["none", "median"])
        mode = chance.choice(["restart", "resume"])
        trainer = chance.choice(
            [
                [f"trainer.command=[{sys.executable},{study_trainer.__file__}]"],
                ["trainer=function", "trainer.function=chaos.study_trainer:train"],
            ]
        )
        return Study(
            name,
            [
                *trainer,
                f"study.name={name}",
                f"study.n_trials={_TRIALS}",
                f"study.budget={_STEPS}",
                "study.max_retries=1000",
                "study.max_failures=null",
                "~study.params",
                "+study.params={x: {type: float, low: -1, high: 1}}",
                f"+study.fixed={{mode: {mode}, step_s: {_STEP_S}}}",
                "study.objective.metric=loss",
                "study.objective.direction=minimize",
                "study.objective.aggregate=last",
                f"sampler={chance.choice(['random', 'tpe'])}",
                f"pruner={pruner}",
                *(["pruner.n_startup_trials=2"] if pruner == "median" else []),
                "report=minimal",
                f"worker.slots={_SLOTS}",
                "worker.grace_s=1",
                "worker.ttl_s=3",
            ],
        )


class Field:
    """A folder with a hub and studies, whose processes are killed while the studies run.

    Args:
        bus: An empty folder.
        studies: Studies that run at the same time.
        chance: Chooses victims and times.
        has_services: Whether services run that are restarted from here; otherwise the commands of
            the studies start them.
    """

    def __init__(
        self, bus: Bus, studies: Sequence[Study], chance: random.Random, *, has_services: bool
    ) -> None:
        self._bus = bus
        self._studies = studies
        self._chance = chance
        self._services: dict[str, Managed] = {}
        self._clients: dict[str, Managed] = {}
        self._restart_at: dict[Managed, float] = {}
        self.killed = Counter[str]()
        os.environ[study_trainer.ACCOUNTS_VARIABLE] = str(bus.directory / "accounts")
        if has_services:
            self._services["hub"] = bus.hub()
            for name in ("optimizer", "reporter"):
                self._services[name] = self._run(name, name, "report=minimal")
        for study in studies:
            if has_services:
                name = f"worker-{study.name}"
                self._services[name] = self._run(name, "worker", *study.overrides)
            has_worker = str(not has_services).lower()
            self._clients[study.name] = self._run(
                study.name, "study", *study.overrides, f"launcher.worker={has_worker}"
            )

    def run(self, kills: int) -> None:
        """Kill up to `kills` processes while the studies run, and wait for the end of all."""
        n_written, written_at = 0, time.monotonic()
        n_killing, killed_at = 0, time.monotonic()
        while self._clients:
            time.sleep(_POLL_S)
            self._supervise()
            n, now = self._count_written(), time.monotonic()
            if n != n_written:
                n_written, written_at = n, now
            if self.killed.total() < kills:
                if n >= n_killing or now - killed_at > _BETWEEN_KILLS_S:
                    self._kill()
                    n_killing, killed_at = n + self._chance.randrange(_BETWEEN_KILLS), now
            elif now - max(written_at, killed_at) > _STANDSTILL_S:
                print(f"no end of {', '.join(self._clients)} in {self._bus.directory}")
                break
        self._stop()

    def compare(self) -> list[Differences]:
        """Compare accounts, log and database of each study, after `run`."""
        hub = self._bus.hub()
        with trialbus.Link(self._bus.endpoint) as link:
            accounts = {
                study.name: read_accounts(self._bus.directory / "accounts" / study.name)
                for study in self._studies
            }
            self._adopt_outboxes(link, accounts)
            differences = [
                Comparison(
                    study.name,
                    _TRIALS,
                    accounts[study.name],
                    _read_log(link, study.name),
                    self._load_trials(study.name),
                ).run()
                for study in self._studies
            ]
        hub.stop()
        return differences

    def _run(self, label: str, *arguments: str) -> Managed:
        command = [sys.executable, "-m", "trialbus_services", *arguments]
        bus = [f"bus.endpoint={self._bus.endpoint}", "bus.dir=log"]
        return self._bus.run(label, [*command, *bus])

    def _supervise(self) -> None:
        """Start again what has ended, but for the commands of studies that have ended well."""
        bury_orphans({process.pid for process in self._bus.processes.values()})
        for name, process in {**self._services, **self._clients}.items():
            if process.running:
                self._restart_at.pop(process, None)
            elif name in self._clients and process.wait(0) == 0:
                del self._clients[name]
            elif self._restart_at.setdefault(process, time.monotonic() + _RESTART_S) < (
                time.monotonic()
            ):
                process.start()

    def _kill(self) -> None:
        """Kill a process, and sometimes others at the same moment."""
        victims: dict[str, list[Descendant]] = {}
        for process in list_descendants():
            victims.setdefault(_get_role(process), []).append(process)
        if victims:
            roles = list(victims)
            [role] = self._chance.choices(roles, [_SHARES[role] for role in roles])
            self.killed[role] += self._chance.choice(victims[role]).kill()
        if self._chance.random() < _TOGETHER:
            self._kill()

    def _count_written(self) -> int:
        folder = self._bus.directory / "accounts"
        return sum(path.stat().st_size for path in folder.glob("*/*"))

    def _stop(self) -> None:
        """Stop everything, the hub last."""
        for process in [*self._clients.values(), *reversed(self._services.values())]:
            if process.running:
                process.stop(60)

    def _adopt_outboxes(self, link: trialbus.Link, accounts: dict[str, Accounts]) -> None:
        """Wait until what killed trainings left in shared memory is in the log."""
        deadline = time.monotonic() + _SETTLE_S
        expected = {
            (study, number, n_attempt, step)
            for study, trials in accounts.items()
            for number, attempts in trials.items()
            for n_attempt, attempt in attempts.items()
            for step in attempt.reported
        }
        with trialbus.Publisher(link=link) as publisher:
            publisher.publish(events.Stop(study="marker"))
            while expected and time.monotonic() < deadline:
                for record in replay(events.EvaluationComplete, link=link, timeout_s=_SETTLE_S):
                    event = record.event
                    if isinstance(event, events.EvaluationComplete):
                        key = (event.study, event.trial, event.attempt, event.step)
                        expected.discard(key)
                time.sleep(_POLL_S)

    def _load_trials(self, study: str) -> list[optuna.trial.FrozenTrial]:
        url = f"sqlite:///{self._bus.directory}/optuna_studies.db"
        try:
            return optuna.load_study(study_name=study, storage=url).trials
        except KeyError:
            return []


def run(n_studies: int, seed: int, kills: int | None = None) -> Outcome:
    """Run studies, a few at a time, kill about `kills` processes, and compare.

    The folder of studies with a difference is kept, and printed.

    Args:
        n_studies: Number of studies.
        seed: Seed of the studies, victims and times.
        kills: Number of kills; None for a dozen for each study.
    """
    adopt_orphans()
    os.environ["PYTHONPATH"] = str(Path(__file__).parents[1])  # of the workers
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    chance = random.Random(seed)
    outcome = Outcome()
    killed = Counter[str]()
    n_kills = kills if kills is not None else n_studies * _KILLS_PER_STUDY
    studies = [Study.make(f"study-{i}", chance) for i in range(n_studies)]
    for first in range(0, n_studies, _STUDIES_PER_FIELD):
        some = studies[first : first + _STUDIES_PER_FIELD]
        bus = Bus(Path(tempfile.mkdtemp(prefix="trialbus-")))
        n_left = n_kills - killed.total()
        share = round(n_left * len(some) / (n_studies - first))
        is_served = first // _STUDIES_PER_FIELD % 2 == 0
        began = time.monotonic()
        try:
            field = Field(bus, some, chance, has_services=is_served)
            field.run(share)
            killed += field.killed
            outcome.processes_left += _count_left(bus)
            differences = field.compare()
        finally:
            bus.stop()
        found = [pair for d in differences for pair in d.found]
        outcome.kills = killed.total()
        outcome.reports += sum(d.reports for d in differences)
        for kind, text in found:
            setattr(outcome, kind, getattr(outcome, kind) + 1)
            print(f"{kind}: {text}")
        took = time.monotonic() - began
        print(f"{'services' if is_served else 'commands'}, {took:.0f} s: {outcome}", flush=True)
        if found:
            print(f"kept: {bus.directory}")
        else:
            shutil.rmtree(bus.directory)
    print("killed: " + ", ".join(f"{role} {n}" for role, n in sorted(killed.items())))
    return outcome


def _count_left(bus: Bus) -> int:
    """Return the number of processes that live a while after the end, and end them."""
    started = {process.pid for process in bus.processes.values()}
    deadline = time.monotonic() + _SETTLE_S
    while (left := list_descendants()) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
        bury_orphans(started)
    for process in left:
        print(f"processes_left: {_get_role(process)} {' '.join(process.arguments)}")
        process.kill()
    return len(left)


def _read_log(link: trialbus.Link, study: str) -> list[events.AnyEvent]:
    return [record.event for record in replay(study=study, link=link, timeout_s=_SETTLE_S)]


def _get_role(process: Descendant) -> str:
    arguments = process.arguments
    if "trialbus.hub" in arguments:
        return "hub"
    if "trialbus_services" in arguments:
        return arguments[arguments.index("trialbus_services") + 1]
    if any(argument.endswith("/guard.py") for argument in arguments):
        return "guard"
    if str(study_trainer.__file__) in arguments:
        return "training"
    return "child"
