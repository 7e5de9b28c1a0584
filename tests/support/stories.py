"""Studies as events, and their databases, without a training."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import optuna
import sqlalchemy.event

import trialbus
from support.client import SPEC
from support.processes import Bus
from trialbus.messages import events


def make_study_start(
    study: str = SPEC.name, submission: str = "1", n_done: int = 0
) -> list[events.Event]:
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


def make_trial(number: int, study: str = SPEC.name, steps: int = 3) -> Iterator[events.Event]:
    """Yield the events of a trial, from the assignment to the optimizer's verdict."""
    yield events.TrialAssigned(
        study=study, trial=number, request=f"r{number}", session="s", params={"x": 0.5}
    )
    for step in range(steps):
        yield events.EvaluationComplete(
            study=study, trial=number, step=step, metrics={"loss": 1 / (number + step + 1)}
        )
    yield events.TrialFinished(study=study, trial=number, state="complete")
    yield events.TrialClosed(
        study=study, trial=number, state="complete", values=[1 / (number + steps)]
    )


def make_study_end(
    study: str = SPEC.name,
    submission: str = "1",
    reason: events.FinishReason = "exhausted",
    error: str | None = None,
) -> events.StudyFinished:
    """Return the end of a study, with a best trial unless the study failed."""
    best = events.BestTrial(number=4, values=[0.125], params={"x": 0.5})
    return events.StudyFinished(
        study=study,
        submission=submission,
        reason=reason,
        best_trials=[] if reason == "failed" else [best],
        counts=events.TrialCounts(complete=5, pruned=2, failed=1),
        error=error,
    )


def publish(bus: Bus, *published: events.Event) -> None:
    with trialbus.Publisher(bus.endpoint) as publisher:
        for event in published:
            publisher.publish(event)
        assert publisher.flush(20)


def record_study(study: str, url: str, n_trials: int = 8, n_params: int = 1) -> None:
    """Record a study in SQLite by plain Optuna; with many params a report takes long."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = optuna.storages.RDBStorage(url)
    storage.engine.dispose()  # its connections lack the pragma below

    @sqlalchemy.event.listens_for(storage.engine, "connect")
    def disable_sync(connection: Any, _: object) -> None:  # pyright: ignore[reportUnusedFunction]
        connection.execute("PRAGMA synchronous=OFF")

    recorded = optuna.create_study(study_name=study, storage=storage)
    unit = optuna.distributions.FloatDistribution(0, 1)
    names = [f"x{index}" for index in range(n_params)]
    recorded.add_trials(
        optuna.create_trial(
            value=number / n_trials,
            params={name: (7 * number + index) % 17 / 17 for index, name in enumerate(names)},
            distributions=dict.fromkeys(names, unit),
        )
        for number in range(n_trials)
    )
    storage.engine.dispose()
