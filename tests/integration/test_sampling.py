"""A sampler process gives the suggestions of plain Optuna, and a failure ends only the study."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import optuna
import psutil
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from support.plain_optuna import ID_OFFSET, PlainOptuna, SamplerRestarted, TrialAsked, TrialTold
from support.until import until
from trialbus import (
    CategoricalParam,
    Component,
    FloatParam,
    IntParam,
    Objective,
    StudySpec,
)
from trialbus_services.optimizer.genetic_parents import renumber_parents
from trialbus_services.optimizer.sampling import Suggester, Suggestion

_TIMEOUT_S = 30.0
_READY = threading.Event()  # set by every suggester

Start = Callable[..., Suggester]

MIXED = {
    "x": FloatParam(low=0, high=1),
    "lr": FloatParam(low=1e-4, high=1, log=True),
    "n": IntParam(low=1, high=6),
    "kind": CategoricalParam(choices=("a", "b", "c")),
}
NUMBERS = {name: MIXED[name] for name in ("x", "lr", "n")}
POINTS = {"n": MIXED["n"], "kind": MIXED["kind"]}
HYPERBAND = Component(
    type="HyperbandPruner", args={"min_resource": 1, "max_resource": 9, "reduction_factor": 3}
)


def make_spec(sampler: str = "TPESampler", **changes: Any) -> StudySpec:
    fields: dict[str, Any] = {
        "name": "s",
        "params": MIXED,
        "objectives": (Objective(metric="m", direction="minimize"),),
        "n_trials": 40,
        "sampler": Component(type=sampler, args=changes.pop("args", {})),
        "pruner": Component(type="MedianPruner", args={"n_startup_trials": 3}),
        "seed": 3,
    }
    return StudySpec(**fields | changes)


TWO_OBJECTIVES = (
    Objective(metric="m", direction="minimize"),
    Objective(metric="k", direction="maximize"),
)


@pytest.fixture
def start() -> Iterator[Start]:
    """Start suggesters that end with the test."""
    started: list[Suggester] = []

    def start(
        study: StudySpec,
        trials: Sequence[FrozenTrial] = (),
        study_attrs: Mapping[str, Any] | None = None,
        *,
        ahead: int = 0,
        on_ready: Callable[[], object] = lambda: None,
    ) -> Suggester:
        def notify() -> None:
            on_ready()
            _READY.set()

        suggester = Suggester(study, trials, study_attrs or {}, ahead=ahead, on_ready=notify)
        started.append(suggester)
        return suggester

    yield start
    for suggester in started:
        suggester.close()


def wait_for_suggestion(suggester: Suggester) -> Suggestion:
    """Wait for the suggestion of the sampler process and return the suggestion."""
    while True:
        _READY.clear()
        suggestion = suggester.take_suggestion()
        if suggestion is not None:
            return suggestion
        assert suggester.error is None, suggester.error
        assert _READY.wait(_TIMEOUT_S), "no suggestion came"


def request_suggestion(suggester: Suggester) -> Suggestion:
    """Request a suggestion and return the suggestion."""
    suggester.request()
    return wait_for_suggestion(suggester)


def make_waiting_trial(number: int, **params: Any) -> FrozenTrial:
    trial = create_trial(
        state=TrialState.WAITING,
        system_attrs={"fixed_params": params},
        user_attrs={"why": "to see"},
    )
    trial.number = number
    return trial


def drop_optimizers(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Return attributes without the optimizers that CMA-ES pickles with uninitialised memory."""
    return {key: ":optimizer:" in key or value for key, value in attrs.items()}


def follow(start: Start, plain: PlainOptuna, offset: int = 0) -> Suggester:
    """Compare each suggestion of plain Optuna with a suggester that is told the same results."""
    suggester = start(plain.spec)
    attrs: dict[str, Any] = {}
    for event in plain.run():
        match event:
            case TrialAsked(trial, study_attrs):
                suggestion = request_suggestion(suggester)
                assert suggestion.number == trial.number
                assert suggestion.params == trial.params
                assert suggestion.distributions == trial.distributions
                assert drop_optimizers(suggestion.system_attrs) == drop_optimizers(
                    trial.system_attrs
                )
                attrs |= renumber_parents(suggestion.study_attrs, lambda n: n - offset + ID_OFFSET)
                assert attrs == study_attrs
                suggester.assign_number(suggestion, trial.number + offset)
            case TrialTold(number, state, values, last):
                suggester.tell(number + offset, state, values, last)
            case SamplerRestarted(trials, study_attrs):
                suggester.close()
                suggester = start(plain.spec, trials, study_attrs)
                attrs = study_attrs
    return suggester


ALL = {
    "random": make_spec("RandomSampler"),
    "tpe": make_spec(),
    "tpe-two-objectives": make_spec(objectives=TWO_OBJECTIVES, pruner=None),
    "tpe-hyperband": make_spec(pruner=HYPERBAND, n_trials=60),
    "cma-es": make_spec("CmaEsSampler", params=NUMBERS),
    "cma-es-pruned": make_spec(
        "CmaEsSampler", params=NUMBERS, args={"consider_pruned_trials": True}
    ),
    "nsga-ii": make_spec("NSGAIISampler", args={"population_size": 6}),
    "nsga-ii-two-objectives": make_spec(
        "NSGAIISampler", args={"population_size": 6}, objectives=TWO_OBJECTIVES, pruner=None
    ),
    "qmc": make_spec("QMCSampler", params=NUMBERS),
    "grid": make_spec("GridSampler", params=POINTS),
    "grid-hyperband": make_spec("GridSampler", params=POINTS, pruner=HYPERBAND),
    "brute-force": make_spec("BruteForceSampler", params=POINTS),
    "gp": make_spec("GPSampler", params=NUMBERS, n_trials=9, args={"n_startup_trials": 3}),
}
LIMITED = ("grid", "grid-hyperband", "brute-force")


@pytest.mark.parametrize("name", ALL)
def test_suggestions_are_those_of_plain_optuna(name: str, start: Start) -> None:
    if name == "gp":
        pytest.importorskip("torch")
    plain = PlainOptuna(ALL[name])
    suggester = follow(start, plain)
    assert plain.stopped == (name in LIMITED)
    if plain.stopped:
        until(lambda: suggester.is_exhausted, describe="the end of the grid")
    assert not suggester.is_exhausted or plain.stopped


@pytest.mark.parametrize(
    "name", ["tpe", "tpe-hyperband", "cma-es", "nsga-ii", "nsga-ii-two-objectives", "qmc", "grid"]
)
def test_suggestions_after_a_restart_are_those_of_plain_optuna(name: str, start: Start) -> None:
    follow(start, PlainOptuna(ALL[name], restart_at=ALL[name].n_trials // 3))


def suggest_conditionally(trial: optuna.Trial) -> None:
    """Suggest the params of `CONDITIONAL` as a script for plain Optuna does."""
    trial.suggest_float("lr", 1e-4, 1, log=True)
    kind = trial.suggest_categorical("kind", ["a", "b", "c"])
    if kind in ("a", "b") and trial.suggest_int("depth", 1, 4) == 2:
        trial.suggest_float("last", 0, 1)
    if kind == "c":
        trial.suggest_categorical("act", ["x", "y"])


CONDITIONAL = {
    "lr": MIXED["lr"],
    "last": FloatParam(low=0, high=1, when={"depth": 2}),  # before the param of its condition
    "depth": IntParam(low=1, high=4, when={"kind": ("a", "b")}),
    "kind": MIXED["kind"],
    "act": CategoricalParam(choices=("x", "y"), when={"kind": "c"}),
}


@pytest.mark.parametrize(
    ("sampler", "args"),
    [
        ("RandomSampler", {}),
        ("TPESampler", {"n_startup_trials": 5}),
        ("TPESampler", {"n_startup_trials": 5, "group": True, "multivariate": True}),
        ("TPESampler", {"n_startup_trials": 5, "multivariate": False}),
        ("NSGAIISampler", {"population_size": 6}),
        ("QMCSampler", {}),
        ("GPSampler", {"n_startup_trials": 6}),
    ],
    ids=str,
)
def test_conditional_params_are_suggested_as_in_a_script_of_plain_optuna(
    sampler: str, args: dict[str, Any], start: Start
) -> None:
    if sampler == "GPSampler":
        pytest.importorskip("torch")
    n_trials = 9 if sampler == "GPSampler" else 40
    study = make_spec(sampler, args=args, params=CONDITIONAL, n_trials=n_trials)
    assert tuple(study.space) == ("lr", "kind", "depth", "last", "act")
    follow(start, PlainOptuna(study, define=suggest_conditionally))
    if sampler == "TPESampler":
        follow(start, PlainOptuna(study, define=suggest_conditionally, restart_at=13))


def test_brute_force_tries_every_point_of_a_conditional_space_once(start: Start) -> None:
    params = {
        "kind": CategoricalParam(choices=("a", "b")),
        "depth": IntParam(low=1, high=3, when={"kind": "a"}),
    }
    suggester = start(make_spec("BruteForceSampler", params=params))
    points: list[dict[str, Any]] = []
    while not suggester.is_exhausted:
        suggestion = request_suggestion(suggester)
        points.append(suggestion.params)
        suggester.assign_number(suggestion, suggestion.number)
        suggester.tell(suggestion.number, TrialState.COMPLETE, [1.0], None)
        if len(points) == 4:
            until(lambda: suggester.is_exhausted, describe="the end of the space")
    assert sorted(points, key=str) == [
        {"kind": "a", "depth": 1},
        {"kind": "a", "depth": 2},
        {"kind": "a", "depth": 3},
        {"kind": "b"},
    ]


@pytest.mark.parametrize("name", ["tpe", "nsga-ii"])
def test_the_study_may_number_its_trials_differently_from_its_copy(name: str, start: Start) -> None:
    follow(start, PlainOptuna(ALL[name]), offset=1000)


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
        assert arrived.acquire(timeout=_TIMEOUT_S)
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
        assert arrived.acquire(timeout=_TIMEOUT_S)
    assert not arrived.acquire(timeout=0.5)
    # Requests are answered all the same.
    assert [request_suggestion(suggester).number for _ in range(4)] == [1, 2, 3, 4]


def test_a_point_that_was_suggested_ahead_does_not_count_as_tried(start: Start) -> None:
    points = {"kind": CategoricalParam(choices=("a", "b", "c"))}
    suggester = start(make_spec("BruteForceSampler", params=points), ahead=5)
    kinds: set[str] = set()
    while not suggester.is_exhausted:
        suggestion = request_suggestion(suggester)
        kinds.add(suggestion.params["kind"])
        suggester.assign_number(suggestion, suggestion.number)
        suggester.tell(suggestion.number, TrialState.COMPLETE, [1.0], None)
        if len(kinds) == 3:
            until(lambda: suggester.is_exhausted, describe="the end of the grid")
    assert kinds == {"a", "b", "c"}


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
    broken, sound = start(make_spec("GridSampler", params=POINTS)), start(make_spec())
    broken.enqueue(make_waiting_trial(0, n=1))
    broken.request()
    until(lambda: not broken.is_alive, _TIMEOUT_S, "the end of the process")
    assert broken.error is not None
    assert broken.error.startswith("ValueError: All parameters must be specified")
    assert "sample_independent" in broken.error
    broken.request()
    assert broken.take_suggestion() is None
    assert request_suggestion(sound).number == 0


def test_a_sampler_that_cannot_be_built_reports_the_reason(start: Start) -> None:
    suggester = start(make_spec("TPESampler", args={"gama": 1}))
    until(lambda: not suggester.is_alive, _TIMEOUT_S, "the end of the process")
    assert suggester.error is not None
    assert "TPESampler has no such argument" in suggester.error


def test_a_killed_process_is_not_an_error(start: Start) -> None:
    calls = threading.Semaphore(0)
    suggester = start(make_spec(), on_ready=calls.release)
    assert suggester.is_alive
    request_suggestion(suggester)
    assert calls.acquire(timeout=_TIMEOUT_S)
    assert suggester.pid is not None
    os.kill(suggester.pid, signal.SIGKILL)
    assert calls.acquire(timeout=_TIMEOUT_S)
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
from trialbus_services.optimizer.sampling import Suggester
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
        until(lambda child=child: not child.is_running(), _TIMEOUT_S, f"the end of {child}")
