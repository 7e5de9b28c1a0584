"""Stop the hub for a while during a training, and count lost and repeated reports."""

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
    """Figures of an outage of the hub, as training and subscriber measured."""

    away_s: float
    """Seconds without a hub."""
    steps: int
    """Steps of the training in total."""
    steps_away: int
    """Steps without a hub."""
    rate: float
    """Steps per second with a hub."""
    rate_away: float
    """Steps per second without a hub."""
    report_s: float
    """Longest call of `report` with a hub, in seconds."""
    report_away_s: float
    """Longest call of `report` without a hub, in seconds."""
    arrived_s: float
    """Seconds from the hub's new start to the arrival of every earlier report."""
    missing: int
    """Steps that the subscriber never received."""
    repeated: int
    """Times the subscriber received a step again."""
    disordered: int
    """Steps that the subscriber received before an earlier step."""
    lost: int
    """Trainers that the hub reported lost."""

    @property
    def is_harmless(self) -> bool:
        """Whether every report arrived once and in order, while the training kept its pace."""
        kept_pace = self.rate_away > self.rate / 2
        return kept_pace and self.missing == self.repeated == self.disordered == self.lost == 0

    def __str__(self) -> str:
        return "  ".join(f"{name} {value:.6g}" for name, value in asdict(self).items())


def run(bus: Bus, seconds: float) -> Outage:
    """Kill the hub for as many steps as a training makes in `seconds`, and count.

    Raises:
        AssertionError: The training or a report was held up.
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
        _wait_for_steps(account, _AROUND_S)
        hub.kill()
        stopped = time.monotonic()
        _wait_for_steps(account, seconds)
        restarted = time.monotonic()
        hub.start()
        n_reported = len(_read_steps(account))
        seen = _read_events(inbox, n_reported)
        arrived = time.monotonic()
        until(lambda: _is_confirmed(link), describe="the training's session at the new hub")
        _wait_for_steps(account, _AROUND_S)
        _stop(training)
        steps = _read_steps(account)
        seen += _read_events(inbox, len(steps) - sum(step is not None for step in seen))
        with trialbus.Publisher(link=link) as publisher:
            publisher.publish(_MARKER)
        while (event := inbox.next(_ARRIVE_S)) != _MARKER:  # repeated, lost
            assert event is not None, "the marker did not arrive"
            seen.append(_get_step(event))
    received = [step for step in seen if step is not None]
    away = [(at, took) for at, took in steps if stopped <= at < restarted]
    around = [(at, took) for at, took in steps if not stopped <= at < restarted]
    around_s = (stopped - steps[0][0]) + (steps[-1][0] - restarted)
    return Outage(
        away_s=restarted - stopped,
        steps=len(steps),
        steps_away=len(away),
        rate=len(around) / around_s,
        rate_away=len(away) / (restarted - stopped),
        report_s=max(took for _, took in around),
        report_away_s=max(took for _, took in away),
        arrived_s=arrived - restarted,
        missing=len(set(range(len(steps))) - set(received)),
        repeated=len(received) - len(set(received)),
        disordered=sum(after < before for before, after in itertools.pairwise(received)),
        lost=len(seen) - len(received),
    )


def _wait_for_steps(account: Path, seconds: float) -> None:
    goal = len(_read_steps(account)) + int(seconds / _STEP_S)
    until(
        lambda: len(_read_steps(account)) >= goal,
        _PATIENCE * seconds + 20,
        f"{seconds / _STEP_S:.0f} steps of the training",
    )


def _is_confirmed(link: trialbus.Link) -> bool:
    return any(session.confirmed for session in hub_status(link).sessions)


def _stop(training: Managed) -> None:
    code = training.stop(30)
    assert code == 0, f"the training ended with {code}"


def _read_steps(account: Path) -> list[tuple[float, float]]:
    data = account.read_bytes() if account.exists() else b""
    size = len(data) - len(data) % trainer.STEP.size
    return [(at, took) for at, took in trainer.STEP.iter_unpack(data[:size])]


def _read_events(
    inbox: trialbus.Subscriber[trialbus.EvaluationComplete | trialbus.TrainerLost], count: int
) -> list[int | None]:
    """Read until `count` evaluations have arrived; return steps, and None for other events."""
    seen: list[int | None] = []
    deadline = time.monotonic() + _ARRIVE_S
    while sum(step is not None for step in seen) < count:
        event = inbox.next(max(0.0, deadline - time.monotonic()))
        if event is None:
            break
        seen.append(_get_step(event))
    return seen


def _get_step(event: trialbus.EvaluationComplete | trialbus.TrainerLost) -> int | None:
    return event.step if isinstance(event, trialbus.EvaluationComplete) else None
