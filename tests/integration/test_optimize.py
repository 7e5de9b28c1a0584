"""Optimize: objective functions of Optuna and trainings run on a bus of their own."""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import optuna
import pytest
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console

import trialbus
from support import objectives, runner_training
from support.client import SPEC, Client, load_study, start_optimizer
from support.processes import Bus
from support.sampler import wait_for_sampler
from trialbus.messages import events
from trialbus_services import optimize
from trialbus_services.reporter.snapshot import Snapshot
from trialbus_services.reporter.study_summary import summarize_study

pytestmark = pytest.mark.timeout(120)

DEFINE_BY_RUN = msgspec.structs.replace(SPEC, params={}, define_by_run=True, n_trials=2)
X = trialbus.FloatParam(low=0, high=1)


@pytest.fixture(autouse=True)
def _here(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(bus.directory)


def run(bus: Bus, function: Callable[..., Any], n_trials: int, **options: Any) -> optuna.Study:
    overrides = [f"bus.endpoint={bus.endpoint}", "bus.dir=log", *options.pop("overrides", [])]
    console = Console(file=io.StringIO())
    return optimize(function, n_trials, overrides=overrides, console=console, **options)


def describe(trial: FrozenTrial) -> tuple[Any, ...]:
    return (
        trial.number,
        trial.state,
        trial.params,
        trial.distributions,
        trial.values,
        trial.intermediate_values,
        trial.constraints,
    )


def test_an_objective_gives_the_trials_of_plain_optuna(bus: Bus) -> None:
    plain = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=3))
    plain.optimize(objectives.minimize_curve, n_trials=16)
    study = run(
        bus,
        objectives.minimize_curve,
        16,
        sampler=optuna.samplers.TPESampler(seed=3),
        n_jobs=1,
        overrides=["optimizer.ahead=0"],
    )
    assert [describe(trial) for trial in study.trials] == [describe(t) for t in plain.trials]
    assert {trial.state for trial in study.trials} == {TrialState.COMPLETE, TrialState.PRUNED}
    assert study.best_trial.user_attrs["squared"] == plain.best_trial.user_attrs["squared"]
    assert study.best_trial.number == plain.best_trial.number
    assert study.direction == plain.direction
    config = summarize_study(Snapshot(study)).config or {}
    assert config["study"]["n_trials"] == 16
    assert config["study"]["params"]["shift"] == {"type": "int", "low": 1, "high": 8, "log": True}
    assert config["sampler"] == {"type": "TPESampler", "seed": 3}


def test_a_study_file_runs_an_objective_and_shows_what_its_trials_asked_for(bus: Bus) -> None:
    (bus.directory / "search.py").write_text(Path(objectives.__file__).read_text())
    (bus.directory / "mine.yaml").write_text(
        """
trainer: {function: search:minimize_curve}
study:
  name: mine
  define_by_run: true
  objective: {metric: loss, direction: minimize}
  n_trials: 3
"""
    )
    study = bus.service("study", "mine.yaml", "storage.url=sqlite:///studies.db")
    assert study.wait(60) == 0, study.printed()
    assert "3 complete" in study.printed()
    study = bus.service("study", "mine.yaml", "storage.url=sqlite:///studies.db", "--dry-run")
    assert study.wait(30) == 0, study.printed()
    assert "x: {type: float, low: -5.0, high: 5.0}" in study.printed()


def test_a_function_of_a_script_runs_without_a_guard_and_continues_its_study(bus: Bus) -> None:
    script = bus.directory / "script.py"
    script.write_text(
        f"""
from trialbus_services import optimize
from trialbus_services.reporter.snapshot import Snapshot
from trialbus_services.reporter.study_summary import summarize_study

scale = 2

def objective(trial):
    return scale * trial.suggest_float("x", 0, 1), trial.number

study = optimize(objective, 4, study_name="s", directions=["minimize", "maximize"], n_jobs=2,
                 overrides=["bus.endpoint={bus.endpoint}", "bus.dir=log"])
print(study.directions, len(study.trials), len(study.best_trials) > 0)
"""
    )
    process = bus.run("script", [sys.executable, str(script)])
    assert process.wait(60) == 0
    assert "MAXIMIZE" in process.printed()
    study = run(
        bus,
        objectives.return_two_values,
        6,
        study_name="s",
        directions=[StudyDirection.MINIMIZE, "maximize"],
    )
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 6
    with pytest.raises(trialbus.SpecError, match="load_if_exists"):
        run(bus, objectives.return_two_values, 6, study_name="s", load_if_exists=False)


def test_a_training_with_a_space_of_optunas_distributions_runs_too(bus: Bus) -> None:
    study = run(
        bus,
        runner_training.train,
        3,
        space={"agent.x": optuna.distributions.FloatDistribution(1, 5)},
        metric="mean_reward",
        direction="maximize",
        sampler="RandomSampler",
        budget=2,
        base_config={"agent": {"depth": 3}},
    )
    assert study.best_value == max(t.params["agent.x"] - 1 for t in study.trials)


def test_a_param_of_another_kind_fails_its_trial_and_says_why(bus: Bus) -> None:
    study = run(bus, objectives.ask_for_another_kind, 2, n_jobs=1)
    first, second = study.trials
    assert (first.state, second.state) == (TrialState.COMPLETE, TrialState.FAIL)
    assert "Cannot set different distribution kind" in second.user_attrs["trialbus:error"]


def request_param(worker: Client, trial: events.TrialAssigned, **fields: Any) -> None:
    worker.publisher.publish(
        events.ParamRequested(study=trial.study, trial=trial.trial, attempt=trial.attempt, **fields)
    )


def test_a_param_keeps_its_value_whoever_is_killed(bus: Bus, client: Callable[[], Client]) -> None:
    bus.hub()
    optimizer = start_optimizer(bus)
    worker = client()
    worker.submit(DEFINE_BY_RUN)
    trial = worker.ask()
    request_param(worker, trial, name="x", param=X)
    value = worker.next(events.ParamSuggested).value
    assert load_study(bus).trials[trial.trial].params == {"x": value}
    optimizer.restart()
    request_param(worker, trial, name="x", param=X)
    assert worker.next(events.ParamSuggested).value == value
    worker.finish(trial, "preempted")
    again = worker.ask()
    assert (again.trial, again.attempt, again.params) == (trial.trial, 1, {"x": value})
    request_param(worker, again, name="x", param=X)
    assert worker.next(events.ParamSuggested).value == value


def test_the_request_of_a_training_survives_the_samplers_end(
    bus: Bus, client: Callable[[], Client]
) -> None:
    bus.hub()
    optimizer = start_optimizer(bus)
    worker = client()
    worker.submit(DEFINE_BY_RUN)
    trial = worker.ask()
    os.kill(wait_for_sampler(optimizer.pid), signal.SIGKILL)
    request_param(worker, trial, name="x", param=X)
    assert X.contains(worker.next(events.ParamSuggested).value)


def test_requests_that_cannot_be_are_answered_with_the_reason(
    bus: Bus, client: Callable[[], Client]
) -> None:
    bus.hub()
    start_optimizer(bus)
    worker = client()
    worker.submit(DEFINE_BY_RUN)
    trial = worker.ask()
    request_param(worker, trial, name="n" * 501, param=X)
    assert "501 characters" in str(worker.next(events.ParamSuggested).error)
    request_param(worker, trial, name="x", param=X, answer=False, value=7.0)
    assert "outside" in str(worker.next(events.ParamSuggested).error)
    request_param(worker, trial, name="x", param=X)
    assert worker.next(events.ParamSuggested).error is None
    request_param(worker, trial, name="x", param=trialbus.IntParam(low=0, high=1))
    assert "distribution" in str(worker.next(events.ParamSuggested).error)


def test_a_training_that_asks_after_the_end_of_its_attempt_is_told(
    bus: Bus, client: Callable[[], Client]
) -> None:
    bus.hub()
    start_optimizer(bus)
    worker = client()
    worker.submit(msgspec.structs.replace(DEFINE_BY_RUN, n_trials=1))
    trial = worker.ask()
    worker.finish(trial, "preempted")
    again = worker.ask()
    request_param(worker, trial, name="x", param=X)
    assert "is over" in str(worker.next(events.ParamSuggested, attempt=0).error)
    request_param(worker, again, name="x", param=X)
    assert worker.next(events.ParamSuggested, attempt=1).error is None
    worker.finish(again, values=[1.0])
    worker.next(events.StudyFinished)
    request_param(worker, again, name="y", param=X)
    assert "is over" in str(worker.next(events.ParamSuggested, name="y").error)


FAILING = """
import optuna

class Failing(optuna.samplers.RandomSampler):
    def sample_independent(self, study, trial, name, distribution):
        raise RuntimeError("no more numbers")
"""


def test_a_sampler_that_fails_refuses_what_is_asked_and_lets_the_training_end(
    bus: Bus, client: Callable[[], Client]
) -> None:
    (bus.directory / "failing.py").write_text(FAILING)
    bus.hub()
    start_optimizer(bus, "optimizer.allowed_modules=[failing]")
    worker = client()
    sampler = trialbus.Component(type="failing.Failing")
    worker.submit(msgspec.structs.replace(DEFINE_BY_RUN, sampler=sampler))
    trial = worker.ask()
    request_param(worker, trial, name="x", param=X)
    assert "no more numbers" in str(worker.next(events.ParamSuggested).error)
    worker.finish(trial, values=[1.0])
    end = worker.next(events.StudyFinished)
    assert (end.reason, end.counts.complete) == ("failed", 1)
    assert "no more numbers" in str(end.error)
