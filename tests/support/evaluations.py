"""Evaluations to publish, and the steps of received evaluations."""

from __future__ import annotations

import trialbus
from support.processes import Bus


def make_evaluation(step: int, study: str = "s", trial: int = 0) -> trialbus.EvaluationComplete:
    """Return an evaluation of a step."""
    return trialbus.EvaluationComplete(
        study=study, trial=trial, step=step, metrics={"loss": 1.0 / (step + 1)}
    )


def read_steps(
    subscriber: trialbus.Subscriber[trialbus.Event | trialbus.UnknownEvent], count: int
) -> list[int]:
    """Read `count` evaluations and return the steps."""
    steps: list[int] = []
    while len(steps) < count:
        event = subscriber.next(20)
        assert isinstance(event, trialbus.EvaluationComplete), (
            f"got {event} after {len(steps)} events"
        )
        steps.append(event.step)
    return steps


def get_step(record: trialbus.Record) -> int:
    """Return the step of an evaluation in the log."""
    event = record.event
    assert isinstance(event, trialbus.EvaluationComplete)
    return event.step


def list_logged_steps(bus: Bus) -> list[int]:
    """Return the steps of every evaluation in the log, which holds no other events."""
    return [get_step(record) for record in trialbus.replay(endpoint=bus.endpoint)]
