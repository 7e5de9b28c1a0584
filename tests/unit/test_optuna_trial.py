"""The Optuna trial that an objective function gets speaks for a trial of the bus."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import optuna
import pytest

import trialbus
from trialbus.messages import events
from trialbus.study.spec import Direction
from trialbus.testing import TestBus
from trialbus.trainer.assignment import make_environment
from trialbus_services.worker.objective import make_optuna_trial

X = trialbus.FloatParam(low=0, high=1)
KIND = trialbus.CategoricalParam(choices=("a", None))


@pytest.fixture
def bus() -> Iterator[TestBus]:
    with TestBus() as bus:
        yield bus


@pytest.fixture
def assign(bus: TestBus, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Assign trial 7 of a study of one objective, with suggestions for two params."""

    def assign(*directions: Direction, is_declared: bool = False) -> None:
        define_by_run = events.DefineByRun(
            objectives=tuple(
                trialbus.Objective(metric=f"value_{i}", direction=direction)
                for i, direction in enumerate(directions or ("maximize",))
            ),
            suggestions={
                "x": events.SuggestedValue(param=X, value=0.25),
                "kind": events.SuggestedValue(param=KIND, value=None),
            },
        )
        assigned = events.TrialAssigned(
            study="test",
            trial=7,
            request="test",
            session="test",
            params={},
            define_by_run=None if is_declared else define_by_run,
        )
        for name, value in make_environment(assigned, bus.endpoint).items():
            monkeypatch.setenv(name, value)

    return assign


def test_what_the_sampler_chose_together_is_used_without_a_round_trip(
    bus: TestBus, assign: Callable[..., None]
) -> None:
    assign()
    with trialbus.attach() as handle:
        trial = make_optuna_trial(handle)
        assert trial.suggest_float("x", 0, 0.5) == 0.25
        assert trial.suggest_float("x", 0, 0.5) == 0.25
        assert trial.suggest_categorical("kind", ["a", None]) is None
        assert (trial.number, trial.params) == (7, {"x": 0.25, "kind": None})
        assert trial.study.direction == optuna.study.StudyDirection.MAXIMIZE
        trial.set_user_attr("rows", [1, 2])
        trial.set_constraint("size", -2)
        trial.report(0.5, 3)
        assert not trial.should_prune()
        handle.complete(1.0)
    requests = bus.events(events.ParamRequested)
    assert [(r.trial, r.name, r.value, r.answer) for r in requests] == [
        (7, "x", 0.25, False),
        (7, "kind", None, False),
    ]
    assert requests[0].param == trialbus.FloatParam(low=0, high=0.5)
    assert [e.metrics for e in bus.events(events.EvaluationComplete)] == [{"value_0": 0.5}]
    assert [(e.key, e.value) for e in bus.events(events.TrialAttributeSet)] == [("rows", [1, 2])]
    (finished,) = bus.events(events.TrialFinished)
    assert (finished.state, finished.values) == ("complete", [1.0])
    assert finished.constraints == {"size": -2.0}


@pytest.mark.filterwarnings("ignore:Choices for a categorical")
def test_a_param_is_asked_for_unless_the_suggestion_is_one_of_its_values(
    bus: TestBus, assign: Callable[..., None]
) -> None:
    assign()
    answers = [
        events.ParamSuggested(study="test", trial=7, name="x", value=3.5),
        events.ParamSuggested(study="test", trial=7, name="kind", error="of another kind"),
    ]
    with trialbus.attach() as handle:
        trial = make_optuna_trial(handle)
        for answer in answers:
            bus.publish(answer)
        assert trial.suggest_float("x", 2, 4) == 3.5
        with pytest.raises(ValueError, match=r"'kind': of another kind"):
            trial.suggest_categorical("kind", ["a", "b"])
        with pytest.raises(ValueError, match=r"\(1, 2\) cannot be recorded"):
            trial.suggest_categorical("other", [(1, 2), "b"])  # type: ignore[list-item]
    assert [request.answer for request in bus.events(events.ParamRequested)] == [True, True]


@pytest.mark.parametrize(
    "arguments",
    [(0, 0.5), (3, {"loss": 0.5}), ({"loss": 0.5}, 3), (0.5, None)],
    ids=["swapped", "of trialbus", "metrics", "no step"],
)
def test_a_report_the_wrong_way_round_says_what_to_write(
    assign: Callable[..., None], arguments: Any
) -> None:
    assign()
    with trialbus.attach() as handle:
        trial = make_optuna_trial(handle)
        with pytest.raises(TypeError, match=r"write report\(0\.5, step=3\)"):
            trial.report(*arguments)
        with pytest.raises(TypeError, match="the step first"):
            handle.report(0.5, 0)  # type: ignore[arg-type]
        trial.report(0.5, 3.0)  # type: ignore[arg-type]


def test_optunas_exception_prunes_any_training(
    bus: TestBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus.assign(monkeypatch.setenv, params={})
    with trialbus.attach():
        raise optuna.TrialPruned
    assert [event.state for event in bus.events(events.TrialFinished)] == ["pruned"]


def test_trialbus_knows_optunas_exception_without_optuna() -> None:
    code = "import sys, trialbus; sys.exit('optuna' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_objective_that_reports_and_never_asks_ends_at_the_report_after_a_prune(
    bus: TestBus, assign: Callable[..., None]
) -> None:
    assign()
    with trialbus.attach() as handle:
        trial = make_optuna_trial(handle)
        trial.report(0.5, 0)
        bus.prune(trial=7)
        for step in range(1, 500):
            trial.report(0.5, step)
            handle.report(step, {"other": 1.0}, wait=0.01) if step > 400 else None
        pytest.fail("the trial was not pruned")
    assert [event.state for event in bus.events(events.TrialFinished)] == ["pruned"]


def test_several_objectives_take_no_reports_as_in_optuna(assign: Callable[..., None]) -> None:
    assign("minimize", "maximize")
    with trialbus.attach() as handle:
        trial = make_optuna_trial(handle)
        with pytest.raises(NotImplementedError, match="multi-objective"):
            trial.report(0.5, 0)
        handle.complete([1.0, 2.0])


@pytest.mark.parametrize(
    ("key", "value"),
    [("", 1.0), ("k" * 501, 1.0), ("size", float("inf")), ("size", "large"), (3, 1.0)],
    ids=["empty", "long", "infinite", "text", "no text"],
)
def test_a_constraint_that_no_storage_can_hold_is_refused(
    assign: Callable[..., None], key: Any, value: Any
) -> None:
    assign()
    with trialbus.attach() as handle, pytest.raises((TypeError, ValueError), match="constraint"):
        handle.set_constraint(key, value)


def test_a_trial_with_declared_params_is_no_trial_of_an_objective(
    assign: Callable[..., None],
) -> None:
    assign(is_declared=True)
    with trialbus.attach() as handle, pytest.raises(trialbus.SpecError, match="define_by_run"):
        make_optuna_trial(handle)
