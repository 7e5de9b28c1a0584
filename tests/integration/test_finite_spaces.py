"""Every point of a finite space is tried once, whoever takes the points and whatever restarts."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from optuna.distributions import CategoricalDistribution
from optuna.trial import TrialState, create_trial

from support.random_history import RandomHistory
from support.suggesters import (
    Start,
    make_spec,
    make_waiting_trial,
    request_suggestion,
)
from support.until import until
from trialbus import CategoricalParam, FloatParam, IntParam
from trialbus.messages import events
from trialbus.study.search_space import Param
from trialbus_services.optimizer.attributes import REUSED


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


CATEGORIES = {
    "kind": CategoricalParam(choices=("a", "b", "c")),
    "size": CategoricalParam(choices=(1, 2)),
    "flag": CategoricalParam(choices=(True, None)),
}
STEPS = {
    "x": FloatParam(low=0, high=0.3, step=0.1),
    "n": IntParam(low=1, high=5, step=2),
}
BRANCHES = {
    "kind": CategoricalParam(choices=("a", "b")),
    "depth": IntParam(low=1, high=3, when={"kind": "a"}),
    "wide": CategoricalParam(choices=(True, False), when={"depth": (2, 3)}),
}
SPACES = [
    pytest.param("GridSampler", CATEGORIES, 12, id="grid"),
    pytest.param("GridSampler", STEPS, 12, id="grid-with-steps"),
    pytest.param("BruteForceSampler", STEPS, 12, id="brute-force"),
    pytest.param("BruteForceSampler", BRANCHES, 6, id="brute-force-with-conditions"),
    pytest.param("TPESampler", CATEGORIES, 12, id="tpe"),
    pytest.param("RandomSampler", CATEGORIES, 12, id="random"),
]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("sampler", "params", "n_points"), SPACES)
def test_every_point_is_tried_once_whatever_happens(
    sampler: str, params: dict[str, Param], n_points: int, seed: int
) -> None:
    spec = make_spec(
        sampler, params=params, fixed={"other": 4}, n_trials=1000, pruner=None, max_failures=None
    )
    with RandomHistory(spec, seed) as history:
        trials = history.run()
        points = Counter(json.dumps(trial.params) for trial in trials)
        assert len(points) == n_points
        assert max(points.values()) == 1
        assert {trial.params["other"] for trial in trials} == {4}
        assert history.find_reason() == "exhausted"
        # A finished space that is submitted again runs nothing more.
        history.submit()
        assert len(history.run()) == n_points
        assert history.find_reason() == "exhausted"


def test_a_trial_that_ran_has_its_point_before_an_older_one_that_waits(start: Start) -> None:
    params = {"kind": CategoricalParam(choices=("a", "b"))}
    ran = create_trial(
        state=TrialState.COMPLETE,
        values=[1.0],
        params={"kind": "a"},
        distributions={"kind": CategoricalDistribution(("a", "b"))},
    )
    ran.number = 1
    suggester = start(
        make_spec("RandomSampler", params=params), [make_waiting_trial(0, kind="a"), ran]
    )
    assert request_suggestion(suggester).params == {"kind": "b"}
    ((number, reason),) = suggester.take_skipped()
    assert number == 0
    assert "tried before" in reason


def test_reused_values_are_recorded_without_an_assignment() -> None:
    params = {"kind": CategoricalParam(choices=("a", "b"))}
    spec = make_spec("RandomSampler", params=params, n_trials=12, pruner=None, duplicates="reuse")
    with RandomHistory(spec, 1, is_calm=True) as history:
        trials = history.run()
        assigned = {e.trial for e in history.bus.log.select(events.TrialAssigned)}
        verdicts = {e.trial: e.values for e in history.bus.log.select(events.TrialClosed)}
    assert len(trials) == 12
    assert verdicts == {trial.number: trial.values for trial in trials}
    reused = [trial for trial in trials if REUSED in trial.user_attrs]
    assert {trial.number for trial in reused}.isdisjoint(assigned)
    assert len(reused) + len(assigned) == 12
    for trial in reused:
        earlier = trials[int(trial.user_attrs[REUSED])]
        assert (trial.params, trial.values) == (earlier.params, earlier.values)
