"""Take the hub away from a training for a while and count what became of its reports."""

from __future__ import annotations

import itertools
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import trialbus
from chaos import trainer
from support.processes import Bus, Managed
from support.until import until
from trialbus.client.admin import hub_status

_STEP_S = 0.02
_AROUND_S = 2.0  # of training with a hub, before and after
_PATIENCE = 3  # times as long as its pace says; then the training counts as held up
_ARRIVE_S = 60.0
_MARKER = trialbus.EvaluationComplete(study="marker", trial=0, step=0, metrics={})


@dataclass
class Outage:
    """What happened.

    Attributes:
        away_s: How long there was no hub.
        steps: Steps of the training, all in all.
        steps_away: Steps while there was no hub.
        rate: Steps in a second while there was a hub.
        rate_away: The same while there was none.
        report_s: Longest call of `report`, in seconds, while there was a hub.
        report_away_s: The same while there was none.
        arrived_s: Seconds from the hub's new start until everything reported before it was there.
        missing: Steps that a subscriber that lived through it never saw.
        repeated: Times it saw a step again.
        disordered: Steps it saw before an earlier one.
        lost: Trainers that the hub reported lost.
    """

    away_s: float
    steps: int
    steps_away: int
    rate: float
    rate_away: float
    report_s: float
    report_away_s: float
    arrived_s: float
    missing: int
    repeated: int
    disordered: int
    lost: int

    @property
    def harmless(self) -> bool:
        """Whether every report arrived once and in order, without the training's knowing."""
        kept_pace = self.rate_away > self.rate / 2
        return kept_pace and self.missing == self.repeated == self.disordered == self.lost == 0

    def __str__(self) -> str:
        return "  ".join(f"{name} {value:.6g}" for name, value in asdict(self).items())


def run(bus: Bus, seconds: float) -> Outage:
    """Kill the hub for as many steps as a training makes in `seconds`, and count.

    Raises:
        AssertionError: The training, or what it reported, is held up.
    """
    hub = bus.hub()
    account = bus.directory / "account"
    with (
        trialbus.Link(bus.endpoint) as link,
        trialbus.subscribe(trialbus.EvaluationComplete, trialbus.TrainerLost, link=link) as inbox,
    ):
        inbox.wait_ready()
        command = [sys.executable, str(trainer.__file__), bus.endpoint, str(account), str(_STEP_S)]
        training = bus.run("trainer", command)
        _train(account, _AROUND_S)
        hub.kill()
        left = time.monotonic()
        _train(account, seconds)
        back = time.monotonic()
        hub.start()
        due = len(_steps(account))
        seen = _take(inbox, due)
        arrived = time.monotonic()
        until(lambda: _is_known(link), describe="the training's session at the new hub")
        _train(account, _AROUND_S)
        _end(training)
        steps = _steps(account)
        seen += _take(inbox, len(steps) - sum(step is not None for step in seen))
        with trialbus.Publisher(link=link) as publisher:
            publisher.publish(_MARKER)
        while (event := inbox.next(_ARRIVE_S)) != _MARKER:  # repeated, lost
            assert event is not None, "the marker did not arrive"
            seen.append(_step(event))
    found = [step for step in seen if step is not None]
    away = [(at, took) for at, took in steps if left <= at < back]
    around = [(at, took) for at, took in steps if not left <= at < back]
    around_s = (left - steps[0][0]) + (steps[-1][0] - back)
    return Outage(
        away_s=back - left,
        steps=len(steps),
        steps_away=len(away),
        rate=len(around) / around_s,
        rate_away=len(away) / (back - left),
        report_s=max(took for _, took in around),
        report_away_s=max(took for _, took in away),
        arrived_s=arrived - back,
        missing=len(set(range(len(steps))) - set(found)),
        repeated=len(found) - len(set(found)),
        disordered=sum(after < before for before, after in itertools.pairwise(found)),
        lost=len(seen) - len(found),
    )


def _train(account: Path, seconds: float) -> None:
    goal = len(_steps(account)) + int(seconds / _STEP_S)
    until(
        lambda: len(_steps(account)) >= goal,
        _PATIENCE * seconds + 20,
        f"{seconds / _STEP_S:.0f} steps of the training",
    )


def _is_known(link: trialbus.Link) -> bool:
    return any(session.confirmed for session in hub_status(link).sessions)


def _end(training: Managed) -> None:
    code = training.stop(30)
    assert code == 0, f"the training ended with {code}"


def _steps(account: Path) -> list[tuple[float, float]]:
    data = account.read_bytes() if account.exists() else b""
    whole = len(data) - len(data) % trainer.STEP.size
    return [(at, took) for at, took in trainer.STEP.iter_unpack(data[:whole])]


def _take(
    inbox: trialbus.Subscriber[trialbus.EvaluationComplete | trialbus.TrainerLost], count: int
) -> list[int | None]:
    """Take that many evaluations, and what comes between them."""
    seen: list[int | None] = []
    deadline = time.monotonic() + _ARRIVE_S
    while sum(step is not None for step in seen) < count:
        event = inbox.next(max(0.0, deadline - time.monotonic()))
        if event is None:
            break
        seen.append(_step(event))
    return seen


def _step(event: trialbus.EvaluationComplete | trialbus.TrainerLost) -> int | None:
    return event.step if isinstance(event, trialbus.EvaluationComplete) else None
