"""Studies told as events, and databases to go with them, without anything that trains."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import optuna
import sqlalchemy.event

import trialbus
from support.client import SPEC
from support.processes import Bus
from trialbus.messages import events


def submitted(study: str = SPEC.name, submission: str = "1", n_done: int = 0) -> list[events.Event]:
    """Return the first events of a run of a study."""
    return [
        events.StudySubmitted(study=study, spec=SPEC, submission=submission),
        events.StudyStarted(
            study=study,
            submission=submission,
            directions=["minimize"],
            metrics=["loss"],
            n_trials=SPEC.n_trials,
            n_done=n_done,
        ),
    ]


def trial(number: int, study: str = SPEC.name, steps: int = 3) -> Iterator[events.Event]:
    """Yield the events of a trial, from the assignment to the end."""
    yield events.TrialAssigned(
        study=study, trial=number, request=f"r{number}", session="s", params={"x": 0.5}
    )
    for step in range(steps):
        yield events.EvaluationComplete(
            study=study, trial=number, step=step, metrics={"loss": 1 / (number + step + 1)}
        )
    yield events.TrialFinished(study=study, trial=number, state="complete")


def finished(
    study: str = SPEC.name,
    submission: str = "1",
    reason: events.FinishReason = "exhausted",
    error: str | None = None,
) -> events.StudyFinished:
    """How it ends; with a best trial unless it failed."""
    best = events.BestTrial(number=4, values=[0.125], params={"x": 0.5})
    return events.StudyFinished(
        study=study,
        submission=submission,
        reason=reason,
        best_trials=[] if reason == "failed" else [best],
        counts=events.TrialCounts(complete=5, pruned=2, failed=1),
        error=error,
    )


def publish(bus: Bus, *told: events.Event) -> None:
    with trialbus.Publisher(bus.endpoint) as publisher:
        for event in told:
            publisher.publish(event)
        assert publisher.flush(20)


def record(study: str, url: str, n_trials: int = 8, n_params: int = 1) -> None:
    """Let plain Optuna record a study in SQLite; one of many params takes long to report."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = optuna.storages.RDBStorage(url)
    storage.engine.dispose()  # of the connection that has the pragma not yet

    @sqlalchemy.event.listens_for(storage.engine, "connect")
    def hurry(connection: Any, _: object) -> None:  # pyright: ignore[reportUnusedFunction]
        connection.execute("PRAGMA synchronous=OFF")

    made = optuna.create_study(study_name=study, storage=storage)
    unit = optuna.distributions.FloatDistribution(0, 1)
    names = [f"x{index}" for index in range(n_params)]
    made.add_trials(
        optuna.create_trial(
            value=number / n_trials,
            params={name: (7 * number + index) % 17 / 17 for index, name in enumerate(names)},
            distributions=dict.fromkeys(names, unit),
        )
        for number in range(n_trials)
    )
    storage.engine.dispose()
