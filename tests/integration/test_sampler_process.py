"""The sampler process: order of answers, suggestions ahead of need, failures and ends."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
from typing import Any

import psutil
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState, create_trial

from support.suggesters import (
    MIXED,
    NUMBERS,
    TIMEOUT_S,
    TWO_OBJECTIVES,
    Start,
    make_spec,
    make_waiting_trial,
    request_suggestion,
    wait_for_suggestion,
)
from support.until import until


def test_a_request_is_answered_without_the_results_told_after_it(start: Start) -> None:
    study = make_spec(args={"n_startup_trials": 1})
    params: list[dict[str, Any]] = []
    for is_paused in (False, True):
        suggester = start(study)
        suggester.assign_number(request_suggestion(suggester), 0)
        assert suggester.pid is not None
        if is_paused:
            os.kill(suggester.pid, signal.SIGSTOP)
        suggester.request()
        if not is_paused:
            params.append(wait_for_suggestion(suggester).params)
        suggester.tell(0, TrialState.COMPLETE, [1.0], None)
        if is_paused:
            os.kill(suggester.pid, signal.SIGCONT)
            params.append(wait_for_suggestion(suggester).params)
        params.append(request_suggestion(suggester).params)
    assert params[:2] == params[2:]


def test_suggestions_ahead_of_need_are_computed_before_they_are_requested(start: Start) -> None:
    arrived = threading.Semaphore(0)
    suggester = start(make_spec(), ahead=2, on_ready=arrived.release)
    for _ in range(2):
        assert arrived.acquire(timeout=TIMEOUT_S)
    assert suggester.take_suggestion() is None  # not requested yet
    suggester.request()
    suggester.request()
    first, second = suggester.take_suggestion(), suggester.take_suggestion()
    assert first is not None
    assert second is not None
    assert (first.number, second.number) == (0, 1)
    percentiles = suggester.latency.compute_percentiles()
    assert percentiles is not None
    assert 0 < percentiles.p50_s <= percentiles.p99_s


def test_no_more_is_suggested_ahead_of_need_than_the_study_has_left(start: Start) -> None:
    arrived = threading.Semaphore(0)
    running = create_trial(state=TrialState.RUNNING)
    suggester = start(make_spec(n_trials=4), [running], ahead=8, on_ready=arrived.release)
    for _ in range(3):
        assert arrived.acquire(timeout=TIMEOUT_S)
    assert not arrived.acquire(timeout=0.5)
    # Requests are answered all the same.
    assert [request_suggestion(suggester).number for _ in range(4)] == [1, 2, 3, 4]


def test_an_enqueued_trial_comes_next_under_its_number_in_the_study(start: Start) -> None:
    suggester = start(make_spec(), [make_waiting_trial(0, x=0.25)])
    first = request_suggestion(suggester)
    assert (first.waiting, first.params["x"]) == (0, 0.25)
    assert first.user_attrs == {"why": "to see"}
    suggester.assign_number(first, 0)
    suggester.enqueue(make_waiting_trial(7, x=0.75))
    suggester.enqueue(make_waiting_trial(7, x=0.75))  # a repetition changes nothing
    second, third = request_suggestion(suggester), request_suggestion(suggester)
    assert (second.waiting, second.params["x"]) == (7, 0.75)
    assert third.waiting is None


def test_results_of_unknown_trials_and_repeated_results_are_ignored(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "trialbus_services")
    suggester = start(make_spec())
    suggestion = request_suggestion(suggester)
    suggester.assign_number(suggestion, 0)
    suggester.tell(0, TrialState.COMPLETE, [1.0], None)
    suggester.tell(0, TrialState.COMPLETE, [1.0], None)
    suggester.tell(5, TrialState.FAIL, None, None)
    assert request_suggestion(suggester).number == 1
    assert [record.levelname for record in caplog.records] == ["DEBUG", "DEBUG"]


def test_constraints_reach_the_sampler(start: Start) -> None:
    # Of two parents NSGA-II keeps the feasible one, however bad it is.
    study = make_spec("NSGAIISampler", args={"population_size": 2})
    suggester = start(study)
    attrs: dict[str, Any] = {}
    for number in range(5):
        suggestion = request_suggestion(suggester)
        attrs |= suggestion.study_attrs
        suggester.assign_number(suggestion, number)
        feasible = -1.0 if number in (1, 3) else 1.0
        suggester.tell(number, TrialState.COMPLETE, [float(number)], None, {"size": feasible})
    assert sorted(attrs["NSGAIISampler:parent:2"]) == [1, 3]


def test_several_objectives_with_a_pruned_trial_that_has_a_curve(start: Start) -> None:
    pruned = create_trial(
        state=TrialState.PRUNED,
        params={"x": 0.5},
        distributions={"x": FloatDistribution(0, 1)},
        intermediate_values={0: 1.0},
    )
    study = make_spec(
        objectives=TWO_OBJECTIVES,
        pruner=None,
        params={"x": MIXED["x"]},
        args={"n_startup_trials": 1},
    )
    suggester = start(study, [pruned])
    suggestion = request_suggestion(suggester)
    suggester.assign_number(suggestion, 1)
    suggester.tell(1, TrialState.PRUNED, None, (3, 1.0))
    assert request_suggestion(suggester).number == 2


def test_a_sampler_that_fails_reports_its_error_and_harms_no_other(start: Start) -> None:
    broken = start(make_spec("CmaEsSampler", params=NUMBERS, args={"x0": {"x": 0.5}}))
    sound = start(make_spec())
    request_suggestion(broken)  # at random
    broken.assign_number(request_suggestion(broken), 1)
    broken.tell(1, TrialState.COMPLETE, [1.0], None)
    broken.request()
    until(lambda: not broken.is_alive, TIMEOUT_S, "the end of the process")
    assert broken.error is not None
    assert broken.error.startswith("the sampler CmaEsSampler failed in sample_relative: Assert")
    assert "_cmaes.py" in broken.error
    broken.request()
    assert broken.take_suggestion() is None
    assert request_suggestion(sound).number == 0


def test_a_sampler_that_cannot_be_built_reports_the_reason(start: Start) -> None:
    suggester = start(make_spec("TPESampler", args={"gama": 1}))
    until(lambda: not suggester.is_alive, TIMEOUT_S, "the end of the process")
    assert suggester.error is not None
    assert "TPESampler has no such argument" in suggester.error


def test_a_killed_process_is_not_an_error(start: Start) -> None:
    calls = threading.Semaphore(0)
    suggester = start(make_spec(), on_ready=calls.release)
    assert suggester.is_alive
    request_suggestion(suggester)
    assert calls.acquire(timeout=TIMEOUT_S)
    assert suggester.pid is not None
    os.kill(suggester.pid, signal.SIGKILL)
    assert calls.acquire(timeout=TIMEOUT_S)
    assert not suggester.is_alive
    assert suggester.error is None
    suggester.request()
    assert suggester.take_suggestion() is None


def test_ctrl_c_does_not_end_a_sampler_process(start: Start) -> None:
    suggester = start(make_spec())
    request_suggestion(suggester)
    assert suggester.pid is not None
    os.kill(suggester.pid, signal.SIGINT)
    assert request_suggestion(suggester).number == 1


def test_a_sampler_process_that_does_not_read_delays_nobody(start: Start) -> None:
    suggester = start(make_spec("RandomSampler"))
    request_suggestion(suggester)
    assert suggester.pid is not None
    os.kill(suggester.pid, signal.SIGSTOP)
    for number in range(3000):  # some megabytes, more than a pipe takes
        suggester.enqueue(make_waiting_trial(number, x=0.5))
    suggester.request()
    os.kill(suggester.pid, signal.SIGCONT)
    assert wait_for_suggestion(suggester).waiting == 0


def test_closing_ends_the_process_and_its_threads(start: Start) -> None:
    before = set(threading.enumerate())
    suggester = start(make_spec(), ahead=1)
    request_suggestion(suggester)
    pid = suggester.pid
    assert pid is not None
    suggester.close()
    suggester.close()
    assert not suggester.is_alive
    until(lambda: not psutil.pid_exists(pid), describe="the end of the process")
    assert set(threading.enumerate()) == before


def test_a_suggester_may_be_closed_while_its_process_starts(start: Start) -> None:
    suggester = start(make_spec())
    suggester.close()
    assert suggester.take_suggestion() is None
    assert not suggester.is_alive


def test_no_process_is_left_when_the_optimizer_is_killed() -> None:
    program = """
import time
from trialbus import FloatParam, Objective, StudySpec
from trialbus_services.optimizer.sampling.suggester import Suggester
if __name__ == "__main__":
    spec = StudySpec(
        name="s", params={"x": FloatParam(low=0, high=1)},
        objectives=(Objective(metric="m"),), n_trials=9,
    )
    suggester = Suggester(spec, [], {}, ahead=0, on_ready=lambda: print("ready", flush=True))
    suggester.request()
    time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"ready\n"
        children = psutil.Process(parent.pid).children(recursive=True)
        assert len(children) >= 2  # the fork server, and the sampler
        parent.kill()
    for child in children:
        until(lambda child=child: not child.is_running(), TIMEOUT_S, f"the end of {child}")
