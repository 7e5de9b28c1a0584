"""Every pruning decision is the decision of Optuna's pruner."""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.pruners import (
    BasePruner,
    HyperbandPruner,
    MedianPruner,
    NopPruner,
    PatientPruner,
    PercentilePruner,
    SuccessiveHalvingPruner,
    ThresholdPruner,
    WilcoxonPruner,
)
from optuna.trial import TrialState

from trialbus import Component, FloatParam, Objective, StudySpec
from trialbus.study.spec import Direction
from trialbus_services.optimizer.pruning.curve import format_compared
from trialbus_services.optimizer.pruning.pruning_decisions import PruningDecisions, build_pruning
from trialbus_services.optimizer.pruning.rules import OptunaRule, PercentileRule
from trialbus_services.optimizer.pruning.warm_up import find_warm_up_problem

NAME = "study"
VALUES = [math.nan, math.inf, -math.inf, 0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0, 2.0]


@dataclass(frozen=True)
class Report:
    slot: int
    step: int
    value: float


@dataclass(frozen=True)
class End:
    slot: int
    state: TrialState


def limits() -> st.SearchStrategy[dict[str, int]]:
    return st.fixed_dictionaries(
        {
            "n_startup_trials": st.integers(0, 3),
            "n_warmup_steps": st.integers(0, 4),
            "interval_steps": st.integers(1, 4),
            "n_min_trials": st.integers(1, 3),
        }
    )


def percentiles() -> st.SearchStrategy[Callable[[], BasePruner]]:
    return st.tuples(st.sampled_from([0.0, 10.0, 25.0, 33.3, 50.0, 90.0, 100.0]), limits()).map(
        lambda args: lambda: PercentilePruner(args[0], **args[1])
    )


def medians() -> st.SearchStrategy[Callable[[], BasePruner]]:
    return limits().map(lambda args: lambda: MedianPruner(**args))


def thresholds() -> st.SearchStrategy[Callable[[], BasePruner]]:
    return st.tuples(
        st.sampled_from([None, 0.1]),
        st.sampled_from([0.75, 1.0]),
        st.integers(0, 4),
        st.integers(1, 4),
    ).map(
        lambda args: (
            lambda: ThresholdPruner(
                lower=args[0], upper=args[1], n_warmup_steps=args[2], interval_steps=args[3]
            )
        )
    )


def halvings() -> st.SearchStrategy[Callable[[], BasePruner]]:
    return st.tuples(
        st.sampled_from(["auto", 1, 2]), st.integers(2, 4), st.integers(0, 1), st.integers(0, 2)
    ).map(
        lambda args: (
            lambda: SuccessiveHalvingPruner(
                min_resource=args[0],
                reduction_factor=args[1],
                min_early_stopping_rate=args[2],
                bootstrap_count=0 if args[0] == "auto" else args[3],
            )
        )
    )


def hyperbands() -> st.SearchStrategy[Callable[[], BasePruner]]:
    return st.tuples(
        st.sampled_from(["auto", 9, 27]),
        st.integers(2, 3),
        st.integers(0, 2),
        st.sampled_from([1, 1, 2, 5, 30]),
    ).map(
        lambda args: (
            lambda: HyperbandPruner(
                min_resource=args[3],
                max_resource=args[0],
                reduction_factor=args[1],
                bootstrap_count=0 if args[0] == "auto" else args[2],
            )
        )
    )


def patients() -> st.SearchStrategy[Callable[[], BasePruner]]:
    return st.tuples(
        st.one_of(st.just(lambda: None), medians(), halvings()),
        st.integers(0, 3),
        st.sampled_from([0.0, 0.2]),
    ).map(lambda args: lambda: PatientPruner(args[0](), patience=args[1], min_delta=args[2]))


def histories() -> st.SearchStrategy[list[Report | End]]:
    """Return histories of several trials at once; a slot begins a new trial after an end."""
    report = st.builds(Report, st.integers(0, 3), st.integers(0, 12), st.sampled_from(VALUES))
    ordered = st.builds(Report, st.integers(0, 3), st.just(-1), st.sampled_from(VALUES))
    end = st.builds(
        End,
        st.integers(0, 3),
        st.sampled_from([TrialState.COMPLETE] * 3 + [TrialState.PRUNED, TrialState.FAIL]),
    )
    return st.lists(st.one_of(ordered, ordered, ordered, report, end), max_size=120)


class Plain:
    """Plain Optuna: a study in memory, with a decision of the pruner after each report."""

    def __init__(self, pruner: BasePruner, direction: Direction) -> None:
        self.storage = optuna.storages.InMemoryStorage()
        self.study = optuna.create_study(
            study_name=NAME, storage=self.storage, direction=direction, pruner=pruner
        )

    def decide(self, number: int) -> bool:
        trial = self.storage.get_trial(number)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return bool(self.study.pruner.prune(self.study, trial))


def replay(
    make: Callable[[], BasePruner], history: list[Report | End], direction: Direction
) -> tuple[list[bool], list[bool]]:
    """Return the decisions of trialbus, with a restart in the middle, and of plain Optuna."""
    plain = Plain(make(), direction)
    pruner = make()

    def build() -> PruningDecisions:
        return build_pruning(
            pruner, study_name=NAME, maximize=direction == "maximize", ask=plain.decide
        )

    pruning = build()
    storage, study_id = plain.storage, 0
    numbers: dict[int, int] = {}
    theirs: list[bool] = []
    ours: list[bool] = []
    for i, entry in enumerate(history):
        if i == len(history) // 2 and type(pruner) is not HyperbandPruner:
            pruning = build()
            pruning.load_trials(plain.study.get_trials(deepcopy=False))
        if entry.slot not in numbers:
            numbers[entry.slot] = storage.create_new_trial(study_id)
        number = numbers[entry.slot]
        if isinstance(entry, Report):
            curve = storage.get_trial(number).intermediate_values
            step = max(curve, default=-1) + 1 if entry.step < 0 else entry.step
            storage.set_trial_intermediate_value(number, step, entry.value)
            theirs.append(plain.decide(number))
            ours.append(pruning.report(number, step, entry.value))
            if ours[-1]:
                assert pruning.explain(number).startswith(f"step {max(curve.keys() | {step})}: ")
            attributes: dict[str, Any] = pruning.pop_attributes(number)
            assert attributes.items() <= storage.get_trial(number).system_attrs.items()
        else:
            value = [0.5] if entry.state == TrialState.COMPLETE else None
            storage.set_trial_state_values(number, entry.state, value)
            pruning.finish(number, entry.state)
            del numbers[entry.slot]
    return ours, theirs


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
@pytest.mark.parametrize(
    "pruners",
    [medians(), percentiles(), thresholds(), halvings(), hyperbands(), patients()],
    ids=["median", "percentile", "threshold", "halving", "hyperband", "patient"],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_every_decision_is_the_decision_of_optuna(
    pruners: st.SearchStrategy[Callable[[], BasePruner]], direction: Direction
) -> None:
    @settings(max_examples=150, deadline=None)
    @given(pruners, histories())
    def compare(make: Callable[[], BasePruner], history: list[Report | End]) -> None:
        ours, theirs = replay(make, history, direction)
        assert ours == theirs

    compare()


def test_the_percentile_equals_that_of_numpy_to_the_last_bit() -> None:
    draw = random.Random(0)
    for _ in range(3000):
        values = [draw.choice([draw.random(), 0.5, 1e300, -3.0]) for _ in range(draw.randint(1, 9))]
        percentile = draw.choice([0.0, 12.5, 33.3, 50.0, 75.0, 100.0, draw.random() * 100])
        rule = PercentileRule(percentile, 0, 0, 1, 1, maximize=False)
        pruning = PruningDecisions(rule, maximize=False)
        for number, value in enumerate(values):
            pruning.report(number, 0, value)
            pruning.finish(number, TrialState.COMPLETE)
        limit = float(np.nanpercentile(np.array(values), percentile))
        assert not pruning.report(100, 0, limit)
        assert pruning.report(101, 0, math.nextafter(limit, math.inf))


class DerivedPruner(MedianPruner):
    """A pruner of a user, derived from a pruner that has a rule."""


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_a_pruner_without_a_rule_is_asked() -> None:
    asked: list[int] = []

    def ask(number: int) -> bool:
        asked.append(number)
        return True

    pruners: list[BasePruner] = [
        DerivedPruner(),
        WilcoxonPruner(),
        PatientPruner(DerivedPruner(), patience=1),
    ]
    for pruner in pruners:
        assert build_pruning(pruner, study_name=NAME, maximize=True, ask=ask).report(7, 0, 0.5)
    assert asked == [7, 7, 7]


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_every_pruner_of_optuna_but_wilcoxon_has_a_rule() -> None:
    arguments: dict[str, dict[str, Any]] = {
        "PatientPruner": {"wrapped_pruner": NopPruner(), "patience": 1},
        "PercentilePruner": {"percentile": 50.0},
        "ThresholdPruner": {"upper": 1.0},
    }
    without_rule: set[str] = set()
    for name in optuna.pruners.__all__:
        class_ = getattr(optuna.pruners, name)
        if class_ is BasePruner:
            continue
        pruner = class_(**arguments.get(name, {}))
        pruning = build_pruning(pruner, study_name=NAME, maximize=True, ask=lambda number: False)
        assert not pruning.report(0, 0, 0.5)
        if isinstance(pruning.rule, OptunaRule):
            without_rule.add(name)
    assert without_rule == {"WilcoxonPruner"}


@pytest.mark.parametrize(
    ("direction", "kept"), [("minimize", {0, 1, 2, 3, 4, 5}), ("maximize", {2, 3, 4, 5, 6, 7})]
)
def test_percentile_75_keeps_the_best_three_quarters(direction: Direction, kept: set[int]) -> None:
    pruner = PercentilePruner(75.0, n_startup_trials=0)
    study = optuna.create_study(direction=direction, pruner=pruner)
    for value in range(8):
        study.add_trial(
            optuna.trial.create_trial(value=value, intermediate_values={0: float(value)})
        )
    ours = build_pruning(
        pruner, study_name=study.study_name, maximize=direction == "maximize", ask=lambda _: False
    )
    ours.load_trials(study.trials)
    theirs: set[int] = set()
    for value in range(8):
        trial = study.ask()
        trial.report(value, 0)
        if not trial.should_prune():
            theirs.add(value)
    assert {n for n in range(8) if not ours.report(100 + n, 0, float(n))} == theirs == kept


@pytest.mark.parametrize(
    ("pruner", "words"),
    [
        (Component(type="MedianPruner", args={"n_warmup_steps": 9}), None),
        (
            Component(type="MedianPruner", args={"n_warmup_steps": 10}),
            "pruner.n_warmup_steps=10 is not below study.budget=10",
        ),
        (
            Component(
                type="PatientPruner",
                args={"wrapped_pruner": {"type": "MedianPruner", "n_warmup_steps": 30}},
            ),
            "pruner.wrapped_pruner.n_warmup_steps=30 is not below",
        ),
    ],
    ids=str,
)
def test_a_warm_up_as_long_as_the_budget_is_a_problem(pruner: Component, words: str | None) -> None:
    spec = StudySpec(
        name="s",
        params={"x": FloatParam(low=0, high=1)},
        objectives=(Objective(metric="m"),),
        n_trials=1,
        budget=10,
        pruner=pruner,
    )
    problem = find_warm_up_problem(spec)
    assert problem is None if words is None else words in str(problem)
    assert find_warm_up_problem(msgspec.structs.replace(spec, budget=None)) is None


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: MedianPruner(n_startup_trials=1), "step 1: 0.2 < median 0.5 of 3 trials"),
        (
            lambda: PercentilePruner(25, n_startup_trials=1),
            "step 1: 0.2 < percentile 25 0.55 of 3 trials",
        ),
        (lambda: ThresholdPruner(lower=0.25), "step 1: 0.2 < lower 0.25"),
        (lambda: ThresholdPruner(upper=0.1), "step 1: 0.2 > upper 0.1"),
        (
            lambda: PatientPruner(None, patience=0),
            "step 1: 0.2 < 0.7, the best of earlier steps (patience 0)",
        ),
        (
            lambda: PatientPruner(MedianPruner(n_startup_trials=1), patience=0),
            (
                "step 1: 0.2 < 0.7, the best of earlier steps (patience 0); "
                "best 0.7 < median 0.75 of 3 trials"
            ),
        ),
        (
            lambda: SuccessiveHalvingPruner(min_resource=1, reduction_factor=3),
            "step 1: 0.2 < 0.6, the limit of the best 1 of 4 trials in rung 0",
        ),
        (
            lambda: SuccessiveHalvingPruner(min_resource=1, bootstrap_count=9),
            "step 1: 0.2 is among the first 9 trials of rung 0",
        ),
    ],
)
def test_a_prune_says_step_value_and_what_the_value_was_compared_with(
    make: Callable[[], BasePruner], reason: str
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        pruner = make()
    pruning = build_pruning(pruner, study_name=NAME, maximize=True, ask=lambda _: False)
    is_wrapped = "; " in reason
    for number, value in enumerate((0.4, 0.5, 0.6)):
        pruning.report(number, 1, value + (0.25 if is_wrapped else 0))
        pruning.finish(number, TrialState.COMPLETE)
    if isinstance(pruner, PatientPruner):
        pruning.report(3, 0, 0.7)
    assert pruning.report(3, 1, 0.2)
    assert pruning.explain(3) == reason


def test_numbers_that_differ_never_look_equal_in_a_reason() -> None:
    assert format_compared(0.5, "<", 0.75) == "0.5 < 0.75"
    assert format_compared(10 / 3, "> median", 3.3333333) == "3.3333333333333335 > median 3.3333333"
