"""Options of a study beyond sampler and pruner, with a scripted worker on a real hub."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import msgspec
import optuna
import pytest
from optuna.trial import TrialState

import trialbus
from support.client import SPEC, Client, load_study, start_optimizer
from support.processes import Bus, Managed
from support.until import until
from trialbus.messages import events
from trialbus.study.values import is_same
from trialbus_services.optimizer.attributes import CURVE, ERROR

TWO = (
    trialbus.Objective(metric="loss", direction="minimize"),
    trialbus.Objective(metric="speed", direction="maximize"),
)
MEDIAN = trialbus.Component(type="MedianPruner", args={"n_startup_trials": 2})


@pytest.fixture
def worker(bus: Bus, client: Callable[[], Client]) -> Client:
    bus.hub()
    start_optimizer(bus)
    return client()


def study(**changes: Any) -> trialbus.StudySpec:
    return msgspec.structs.replace(SPEC, **changes)


def run(worker: Client, *losses: float, **last: float) -> trialbus.TrialAssigned:
    """Run a trial that reports losses, and the same other metrics with each loss."""
    trial = worker.ask()
    for step, loss in enumerate(losses):
        worker.report(trial, step, loss=loss, **last)
    worker.finish(trial)
    return trial


def end(worker: Client) -> trialbus.StudyFinished:
    return worker.next(trialbus.StudyFinished)


def restart(bus: Bus, service: Managed) -> None:
    service.kill()
    start_optimizer(bus)


def test_several_objectives_are_pruned_by_the_metric_that_is_named(
    bus: Bus, worker: Client
) -> None:
    by = trialbus.PruneBy(metric="loss")
    worker.submit(study(objectives=TWO, pruner=MEDIAN, prune_by=by, n_trials=4))
    for loss in (1.0, 2.0, 3.0):
        run(worker, loss, loss, speed=1.0)
    bad = worker.ask()
    worker.report(bad, 0, loss=9.0, speed=100.0)
    prune = worker.next(trialbus.Prune)
    assert (prune.trial, prune.reason) == (bad.trial, "step 0: 9 > median 2 of 3 trials (loss)")
    worker.finish(bad, "pruned")
    assert end(worker).counts == events.TrialCounts(complete=3, pruned=1)
    recorded = load_study(bus)
    assert [trial.values for trial in recorded.trials[:3]] == [[1, 1], [2, 1], [3, 1]]
    assert recorded.trials[3].state == TrialState.PRUNED
    assert [trial.intermediate_values for trial in recorded.trials] == [{}] * 4
    assert recorded.trials[0].user_attrs[CURVE] == {"0": 1.0, "1": 1.0}
    # Optuna's TPE refuses pruned trials with intermediate values in such a study.
    recorded.sampler = optuna.samplers.TPESampler(n_startup_trials=1, seed=0)
    recorded.ask({"x": optuna.distributions.FloatDistribution(-3, 3)})


def test_recorded_curves_of_another_metric_prune_after_a_restart(
    bus: Bus, client: Callable[[], Client]
) -> None:
    bus.hub()
    service = start_optimizer(bus)
    worker = client()
    by = trialbus.PruneBy(metric="temperature", direction="minimize")
    worker.submit(study(pruner=MEDIAN, prune_by=by, n_trials=4))
    for warm in (1.0, 2.0, 3.0):
        run(worker, 5.0, temperature=warm)
    restart(bus, service)
    hot = worker.ask()
    worker.report(hot, 0, loss=0.0, temperature=9.0)
    assert worker.next(trialbus.Prune).reason == "step 0: 9 > median 2 of 3 trials (temperature)"
    worker.finish(hot, "pruned")
    assert end(worker).counts.pruned == 1
    # The curve that Optuna and its dashboard show stays that of the objective.
    assert load_study(bus).trials[0].intermediate_values == {0: 5.0}


def test_a_pruner_without_a_rule_reads_a_study_of_one_objective(worker: Client) -> None:
    wilcoxon = trialbus.Component(type="WilcoxonPruner", args={"n_startup_steps": 4})
    by = trialbus.PruneBy(metric="loss")
    worker.submit(study(objectives=TWO, pruner=wilcoxon, prune_by=by, n_trials=2))
    run(worker, *range(12), speed=1.0)
    bad = worker.ask()
    for step in range(12):
        worker.report(bad, step, loss=step + 10.0 + step / 100, speed=1.0)
    assert worker.next(trialbus.Prune).trial == bad.trial


def test_fixed_params_are_assigned_and_recorded(bus: Bus, worker: Client) -> None:
    fixed: dict[str, Any] = {"depth": 3, "rate": 0.5, "name": "é", "flag": True, "none": None}
    worker.submit(study(fixed=fixed, n_trials=1))
    trial = worker.run_one()
    assert {name: trial.params[name] for name in fixed} == fixed
    assert set(trial.params) == {"x", "kind", *fixed}
    end(worker)
    assert load_study(bus).best_params == trial.params


def test_a_labelled_choice_is_its_label_to_optuna_and_its_value_to_the_training(
    bus: Bus, client: Callable[[], Client]
) -> None:
    bus.hub()
    service = start_optimizer(bus)
    worker = client()
    layers = {"small": [64, 64], "large": {"n": [256, math.inf]}, "none": None}
    params: dict[str, Any] = {
        "layers": trialbus.CategoricalParam(choices=layers),
        "clip": trialbus.CategoricalParam(choices=(math.inf, math.nan, 1.0)),
        "depth": trialbus.IntParam(low=1, high=9, when={"layers": "large"}),
    }
    enqueue = (
        {"layers": layers["large"], "clip": math.inf, "depth": 2},
        {"layers": "small", "clip": math.nan},
    )
    labelled = study(params=params, fixed={"f": [1, {"a": -math.inf}]}, enqueue=enqueue, n_trials=4)
    worker.submit(labelled)
    first = worker.ask()
    assert is_same(
        first.params,
        {"layers": layers["large"], "clip": math.inf, "depth": 2, "f": [1, {"a": -math.inf}]},
    )
    assert first.labels == {"layers": "large", "f": '[1, {"a": -Infinity}]'}
    restart(bus, service)
    worker.report(first, 0, loss=1.0)
    worker.finish(first)
    second = run(worker, 2.0)
    assert is_same(
        second.params, {"layers": [64, 64], "clip": math.nan, "f": [1, {"a": -math.inf}]}
    )
    worker.publisher.publish(
        trialbus.Enqueue(study=labelled.name, enqueue="e", params={"layers": None, "clip": 1.0})
    )
    third = run(worker, 3.0)
    fourth = run(worker, 3.0)
    found = [third, fourth]  # a suggestion that was ready may come first
    assert any(t.params["layers"] is None and t.params["clip"] == 1.0 for t in found)
    best = end(worker).best_trials[0]
    assert best.params["layers"] == "large"
    recorded = load_study(bus)
    assert [trial.params["layers"] for trial in recorded.trials[:2]] == ["large", "small"]
    assert is_same([trial.params["clip"] for trial in recorded.trials[:2]], [math.inf, math.nan])
    other = {"small": [32], **{name: layers[name] for name in ("large", "none")}}
    params["layers"] = trialbus.CategoricalParam(choices=other)
    worker.submit(study(params=params, fixed=labelled.fixed, n_trials=9))
    assert "study.params.layers: small is [32]" in str(end(worker).error)


def test_a_conditional_study_is_in_the_database_as_a_script_of_plain_optuna_leaves_it(
    bus: Bus, client: Callable[[], Client]
) -> None:
    params = {
        "heads": trialbus.IntParam(low=1, high=8, when={"kind": "b"}),
        "kind": trialbus.CategoricalParam(choices=("a", "b")),
        "x": trialbus.FloatParam(low=-3, high=3),
    }
    sampler = trialbus.Component(type="TPESampler", args={"n_startup_trials": 3})
    bus.hub()
    start_optimizer(bus, "optimizer.ahead=0")
    worker = client()
    worker.submit(study(params=params, sampler=sampler, seed=5, n_trials=12))
    for _ in range(12):
        trial = worker.ask()
        worker.report(trial, 0, loss=trial.params["x"] ** 2 + trial.params.get("heads", 3))
        worker.finish(trial)
    end(worker)
    plain = optuna.create_study(sampler=optuna.samplers.TPESampler(n_startup_trials=3, seed=5))
    for _ in range(12):
        trial = plain.ask()
        kind = trial.suggest_categorical("kind", ["a", "b"])
        heads = trial.suggest_int("heads", 1, 8) if kind == "b" else 3
        trial.report(trial.suggest_float("x", -3, 3) ** 2 + heads, 0)
        plain.tell(trial, trial.suggest_float("x", -3, 3) ** 2 + heads)
    trials = load_study(bus).trials
    assert {frozenset(trial.params) for trial in trials} == {
        frozenset({"kind", "x"}),
        frozenset({"kind", "heads", "x"}),
    }
    for ours, theirs in zip(trials, plain.trials, strict=True):
        assert ours.params == theirs.params
        assert ours.distributions == theirs.distributions
        assert (ours.state, ours.values) == (theirs.state, theirs.values)
        assert ours.intermediate_values == theirs.intermediate_values
        assert ours.system_attrs == theirs.system_attrs


def test_the_config_of_a_study_is_assigned_with_each_trial(worker: Client) -> None:
    worker.submit(
        study(
            evaluation=trialbus.Evaluation(interval=50, episodes=20),
            base_config={"env": {"size": 3, "name": "maze"}},
            trial_overrides={"env.size": 5},
            n_trials=1,
        )
    )
    trial = worker.ask()
    assert (trial.evaluation.interval, trial.evaluation.episodes) == (50, 20)
    assert (trial.config, trial.config_name) == ({"env": {"name": "maze", "size": 5}}, None)


def test_without_catch_exceptions_the_first_failed_trial_ends_the_study_with_its_error(
    bus: Bus, client: Callable[[], Client]
) -> None:
    bus.hub()
    service = start_optimizer(bus)
    worker = client()
    strict = study(catch_exceptions=False, n_trials=9)
    worker.submit(strict)
    failing, running = worker.ask(), worker.ask()
    worker.finish(failing, "failed", error="RuntimeError: no luck")
    until(lambda: load_study(bus).trials[failing.trial].state == TrialState.FAIL)
    restart(bus, service)  # the failure is known after the restart
    worker.report(running, 0, loss=1.0)
    worker.finish(running)
    finished = end(worker)
    assert finished.reason == "failed"
    assert finished.error == (
        f"trial {failing.trial} failed: RuntimeError: no luck (study.catch_exceptions=false)"
    )
    assert finished.counts == events.TrialCounts(complete=1, failed=1)
    assert load_study(bus).trials[failing.trial].values is None
    # A failure before the newest submission does not end the study.
    worker.submit(strict)
    run(worker, 0.5)
    run(worker, 0.5)


def test_failed_trials_are_failed_and_do_not_end_a_study_that_catches_them(
    bus: Bus, worker: Client
) -> None:
    worker.submit(study(n_trials=4, max_failures=2))
    for state in ("failed", "complete", "failed", "complete"):
        trial = worker.ask()
        worker.report(trial, 0, loss=1.0)
        worker.finish(trial, state, error="no luck" if state == "failed" else None)
    finished = end(worker)
    assert (finished.reason, finished.error) == ("exhausted", None)
    assert finished.counts == events.TrialCounts(complete=2, failed=2)
    trials = load_study(bus).trials
    assert [(trial.state.name, trial.values) for trial in trials] == [
        ("FAIL", None),
        ("COMPLETE", [1.0]),
    ] * 2


def test_n_trials_is_a_total_over_workers_restarts_and_submissions(
    bus: Bus, client: Callable[[], Client]
) -> None:
    bus.hub()
    service = start_optimizer(bus, "optimizer.ahead=3")
    one, two = client(), client()
    one.submit(study(n_trials=5))
    run(one, 1.0)
    running = [one.ask(), two.ask()]
    restart(bus, service)
    one.submit(study(n_trials=5))
    for trial in running:
        one.report(trial, 0, loss=1.0)
        one.finish(trial)
    run(two, 1.0)
    run(one, 1.0)
    finished = end(one)
    assert (finished.reason, finished.counts.complete) == ("exhausted", 5)
    assert [trial.state.name for trial in load_study(bus).trials] == ["COMPLETE"] * 5


def test_enqueued_trials_run_first_and_once(bus: Bus, client: Callable[[], Client]) -> None:
    bus.hub()
    service = start_optimizer(bus)
    worker = client()
    queued: tuple[dict[str, Any], ...] = ({"x": 1.5, "kind": "b"}, {"x": -2.0})
    worker.submit(study(enqueue=queued, n_trials=3))
    first = worker.run_one()
    restart(bus, service)
    worker.submit(study(enqueue=queued, n_trials=3))
    second, third = worker.run_one(), worker.run_one()
    assert (first.params, second.params["x"]) == (queued[0], -2.0)
    assert third.params["x"] not in (1.5, -2.0)
    assert end(worker).counts.complete == 3
    assert len(load_study(bus).trials) == 3


def test_a_trial_that_violates_a_constraint_is_never_the_best(bus: Bus, worker: Client) -> None:
    limit = "{size/mb} * 2 <= 10"
    worker.submit(study(constraints=(limit,), n_trials=3))
    run(worker, 0.0, **{"size/mb": 6.0})
    run(worker, 1.0, **{"size/mb": 5.0})
    run(worker, 2.0, **{"size/mb": 1.0})
    finished = end(worker)
    assert [best.number for best in finished.best_trials] == [1]
    recorded = load_study(bus)
    assert [trial.constraints for trial in recorded.trials] == [{limit: 2}, {limit: 0}, {limit: -8}]
    assert recorded.best_trial.number == 1


def test_a_trial_without_a_metric_of_a_constraint_fails_and_names_the_metric(
    bus: Bus, worker: Client
) -> None:
    worker.submit(study(constraints=("size <= 10",), n_trials=1))
    run(worker, 0.0)
    assert end(worker).counts.failed == 1
    error = load_study(bus).trials[0].user_attrs[ERROR]
    assert error == "study.constraints[0] 'size <= 10' needs size; the trainer reported: loss"


def test_a_study_without_a_feasible_trial_reports_that_no_trial_meets_the_constraints(
    worker: Client,
) -> None:
    worker.submit(study(constraints=("loss <= 1",), n_trials=1))
    run(worker, 2.0)
    finished = end(worker)
    assert (finished.best_trials, finished.error) == ([], "no trial meets the constraints")


@pytest.mark.parametrize(
    ("policy", "states", "values"),
    [
        pytest.param("fail", "CFF", [1.0, None, None], id="fail"),
        pytest.param("ignore", "CCF", [1.0, 3.0, None], id="ignore"),
        pytest.param("worst", "CCC", [1.0, 1.0, 1.0], id="worst"),
    ],
)
def test_objectives_that_are_not_finite_follow_the_policy(
    bus: Bus, worker: Client, policy: str, states: str, values: list[float | None]
) -> None:
    worker.submit(study(nan=policy, n_trials=3))
    run(worker, 1.0)
    run(worker, 3.0, math.nan)
    run(worker, math.inf)
    end(worker)
    trials = load_study(bus).trials
    assert "".join(trial.state.name[0] for trial in trials) == states
    assert [trial.value for trial in trials] == values


def test_a_trial_that_reports_nan_is_pruned_at_once_where_the_study_says_so(
    worker: Client,
) -> None:
    worker.submit(study(nan="prune", n_trials=2))
    run(worker, 1.0)
    trial = worker.ask()
    worker.report(trial, 0, loss=1.0)
    worker.report(trial, 1, loss=math.nan)
    prune = worker.next(trialbus.Prune)
    assert (prune.step, prune.reason) == (1, "step 1: loss is nan (study.nan=prune)")
    worker.finish(trial)  # the trainer ignored the command
    assert end(worker).counts == events.TrialCounts(complete=1, pruned=1)


def test_a_study_ends_when_its_target_is_reached(bus: Bus, worker: Client) -> None:
    worker.submit(study(target=0.5))
    run(worker, 2.0)
    run(worker, 0.4)
    finished = end(worker)
    assert (finished.reason, finished.error) == ("converged", "0.4 reaches study.target=0.5")
    assert (finished.counts.complete, len(load_study(bus).trials)) == (2, 2)


def test_a_study_ends_without_progress_also_over_a_restart(
    bus: Bus, client: Callable[[], Client]
) -> None:
    bus.hub()
    service = start_optimizer(bus)
    worker = client()
    worker.submit(study(early_stop_patience=3, early_stop_min_delta=0.1, n_trials=50))
    for loss in (2.0, 1.0, 0.95, 0.92):
        run(worker, loss)
    restart(bus, service)
    run(worker, 3.0)
    finished = end(worker)
    assert finished.reason == "converged"
    assert finished.error == "3 trials brought no progress (study.early_stop_patience=3)"
    assert finished.counts.complete == 5


def test_params_that_do_not_fit_the_study_in_the_storage_are_refused(worker: Client) -> None:
    worker.submit(study(n_trials=1))
    worker.run_one()
    end(worker)
    kinds = trialbus.CategoricalParam(choices=("a", "c"))
    worker.submit(study(params={"kind": kinds}, n_trials=2))
    finished = end(worker)
    assert finished.reason == "failed"
    assert "study.params.kind: ['a', 'c'] does not fit" in str(finished.error)
