"""Why a trial failed: every failed trial has a cause, and its error says what explains it."""

from __future__ import annotations

import math
from typing import Any

import pytest
from optuna.trial import TrialState

import trialbus
from trialbus_services.optimizer.outcome import Judge, Outcome
from trialbus_services.optimizer.trial_states import AttemptEnd, EndState, OpenTrial
from trialbus_services.process.error_text import describe_error

SPEC = trialbus.StudySpec(
    name="s",
    params={"x": trialbus.FloatParam(low=0, high=1)},
    objectives=(trialbus.Objective(metric="loss", aggregate="at_step(1)"),),
    constraints=("size <= 10",),
    n_trials=3,
)


def judge(
    loss: dict[int, float], size: float | None = 1.0, state: EndState = "complete", **end: Any
) -> Outcome:
    """Return the outcome of a trial that reported losses by step, and a size."""
    curves = {"loss": loss} if loss else {}
    last = {name: curve[max(curve)] for name, curve in curves.items()}
    last |= {} if size is None else {"size": size}
    attempt_end = AttemptEnd("s", OpenTrial(0, 0), state, **end)
    return Judge(SPEC).determine_outcome(attempt_end, curves, last, None, {"x": 0.5})


@pytest.mark.parametrize(
    ("outcome", "cause", "error"),
    [
        pytest.param(judge({}), "missing_metric", "'loss' was never reported", id="no-report"),
        pytest.param(judge({0: 1.0}), "missing_metric", "has no value for", id="no-such-step"),
        pytest.param(judge({1: 1.0}, None), "missing_metric", "needs size", id="no-constraint"),
        pytest.param(judge({1: math.nan}), "bad_value", "is NaN", id="nan"),
        pytest.param(judge({1: math.inf}), "bad_value", "is inf", id="infinite"),
        pytest.param(judge({1: 1.0}, math.nan), "bad_value", "is nan", id="nan-constraint"),
        pytest.param(judge({}, values=[1.0, 2.0]), "bad_value", "gave 2 values", id="two-values"),
        pytest.param(judge({}, state="failed"), "exception", "gave no reason", id="no-reason"),
        pytest.param(judge({}, state="failed", cause="lost"), "lost", "no reason", id="lost"),
    ],
)
def test_a_failed_trial_has_a_cause(outcome: Outcome, cause: str, error: str) -> None:
    assert (outcome.state, outcome.cause) == (TrialState.FAIL, cause)
    assert error in str(outcome.error)


def test_a_complete_trial_has_no_cause() -> None:
    outcome = judge({1: 0.5}, error="what the worker noticed")
    assert (outcome.state, outcome.cause, outcome.error) == (TrialState.COMPLETE, None, None)


def test_what_the_worker_noticed_stands_behind_a_missing_metric() -> None:
    outcome = judge({}, error="the program left no metrics in trainer.metrics (file: m.csv)")
    assert str(outcome.error).endswith(
        "reported: size; the program left no metrics in trainer.metrics (file: m.csv)"
    )


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (trialbus.SpecError("study.name", "'a' is taken"), "study.name: 'a' is taken"),
        (OSError(28, "No space left on device"), "[Errno 28] No space left on device"),
        (KeyError("x"), "KeyError: 'x'"),
        (RuntimeError(), "RuntimeError"),
    ],
    ids=["ours", "system", "class-says-more", "empty"],
)
def test_an_error_is_described_without_its_class_where_the_message_says_all(
    error: Exception, text: str
) -> None:
    assert describe_error(error) == text
