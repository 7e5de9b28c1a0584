"""Suggestions of a study: duplicates, constraints over params, and what samplers may return."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from typing import Any

import optuna
import pytest
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from support.suggesters import MIXED, POINTS, make_spec
from trialbus import CategoricalParam, FloatParam, IntParam, StudySpec
from trialbus.study.search_space import Param
from trialbus_services.optimizer.sampling import study_copy
from trialbus_services.optimizer.sampling.checked_sampler import SamplerFaultError
from trialbus_services.optimizer.sampling.messages import Start, Suggestion, Tell
from trialbus_services.optimizer.sampling.study_copy import StudyCopy

UNIT = {"x": FloatParam(low=0, high=1), "y": FloatParam(low=0, high=1)}
FEW = {"n": IntParam(low=1, high=2), "flag": CategoricalParam(choices=(True, None))}
SAMPLERS: dict[str, dict[str, Any]] = {
    "RandomSampler": {},
    "TPESampler": {"n_startup_trials": 4},
    "CmaEsSampler": {},
    "NSGAIISampler": {"population_size": 4},
    "NSGAIIISampler": {"population_size": 4},
    "QMCSampler": {"scramble": True},
    "GPSampler": {"n_startup_trials": 4},
    "PartialFixedSampler": {"fixed_params": {}, "base_sampler": {"type": "TPESampler"}},
}
CROSSOVERS = ["Uniform", "BLXAlpha", "SPX", "SBX", "VSBX", "UNDX"]
KINDS: dict[str, dict[str, Param]] = {
    "float": {"x": FloatParam(low=-1, high=1)},
    "log": {"x": FloatParam(low=1e-6, high=1, log=True)},
    "step": {"x": FloatParam(low=0, high=0.7, step=0.1)},
    "int": {"n": IntParam(low=-3, high=12, step=3)},
    "int-log": {"n": IntParam(low=1, high=1000, log=True)},
    "choices": {"kind": CategoricalParam(choices=("a", 2, 2.5, None, False))},
    "all": {**MIXED, "step": FloatParam(low=0, high=0.7, step=0.1)},
}


def copy_study(spec: StudySpec, *trials: FrozenTrial) -> StudyCopy:
    return StudyCopy(Start(spec, trials, study_attrs={}, ahead=0))


def run(spec: StudySpec, n_trials: int) -> list[Suggestion]:
    """Run trials one after the other, each with a value that follows from its number."""
    study = copy_study(spec)
    suggestions: list[Suggestion] = []
    for _ in range(n_trials):
        if study.is_exhausted:
            break
        suggestion = study.ask()
        suggestions.append(suggestion)
        if suggestion.reused is None:
            value = float(suggestion.number % 5)
            study.tell(Tell(suggestion.number, TrialState.COMPLETE, [value], None, {}))
    return suggestions


def wait(**params: Any) -> FrozenTrial:
    trial = create_trial(state=TrialState.WAITING, system_attrs={"fixed_params": params})
    trial.number = 0
    return trial


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("sampler", "args"),
    [
        *SAMPLERS.items(),
        *(
            (
                "NSGAIISampler",
                {
                    "population_size": 4,
                    "crossover": {"type": f"{name}Crossover"},
                    "mutation": {"type": "PolynomialMutation"},
                },
            )
            for name in CROSSOVERS
        ),
    ],
    ids=[*SAMPLERS, *CROSSOVERS],
)
def test_every_sampler_suggests_plain_values_of_every_kind_of_param(
    sampler: str, args: dict[str, Any], kind: str
) -> None:
    if sampler == "GPSampler":
        pytest.importorskip("torch")
    spec = make_spec(sampler, args=args, params=KINDS[kind], duplicates="allow", seed=2**32 - 1)
    n_trials = 6 if sampler == "GPSampler" else 12
    for suggestion in run(spec, n_trials):
        for name, value in suggestion.params.items():
            assert type(value) in (int, float, str, bool, type(None))
            assert spec.params[name].contains(value)
        json.dumps(suggestion.system_attrs)


@pytest.mark.parametrize("sampler", ["TPESampler", "RandomSampler"])
def test_skipped_duplicates_leave_every_point_of_a_small_space(sampler: str) -> None:
    suggestions = run(make_spec(sampler, params=FEW, duplicates="skip"), 20)
    assert len(suggestions) == 4
    assert len({json.dumps(s.params) for s in suggestions}) == 4
    assert [s.number for s in suggestions] == [0, 1, 2, 3]  # a dropped suggestion leaves no trace


def test_allowed_duplicates_are_those_of_plain_optuna() -> None:
    spec = make_spec("RandomSampler", params=FEW, duplicates="allow")
    plain = optuna.create_study(sampler=RandomSampler(seed=spec.seed))
    for suggestion in run(spec, 12):
        trial = plain.ask()
        n, flag = trial.suggest_int("n", 1, 2), trial.suggest_categorical("flag", [True, None])
        assert suggestion.params == {"n": n, "flag": flag}


def test_a_reused_value_is_that_of_the_first_complete_trial_with_the_same_params() -> None:
    suggestions = run(make_spec("RandomSampler", params=FEW, duplicates="reuse"), 12)
    assert len(suggestions) == 12
    ran = {s.number: s.params for s in suggestions if s.reused is None}
    assert 1 < len(ran) <= 4
    assert len({json.dumps(params) for params in ran.values()}) == len(ran)
    assert all(ran[s.reused] == s.params for s in suggestions if s.reused is not None)


def test_a_study_without_searched_params_is_run_again_and_again() -> None:
    assert len(run(make_spec("TPESampler", params={}, fixed={"x": 1}), 5)) == 5


@pytest.mark.parametrize("sampler", ["TPESampler", "RandomSampler", "CmaEsSampler", "QMCSampler"])
def test_no_suggestion_violates_a_constraint_over_params(sampler: str) -> None:
    spec = make_spec(sampler, params=UNIT, constraints=("x + y <= 0.2",))
    suggestions = run(spec, 15)
    assert len(suggestions) == 15
    assert all(s.params["x"] + s.params["y"] <= 0.2 for s in suggestions)


@pytest.mark.parametrize("sampler", ["GridSampler", "BruteForceSampler"])
def test_points_that_violate_a_constraint_are_left_out(sampler: str) -> None:
    spec = make_spec(sampler, params=POINTS, constraints=("n <= 2",))
    suggestions = run(spec, 40)
    assert {(s.params["n"], s.params["kind"]) for s in suggestions} == set(
        itertools.product((1, 2), "abc")
    )
    assert len(suggestions) == 6


def test_a_constraint_that_nothing_meets_ends_the_sampler_with_an_error() -> None:
    study = copy_study(make_spec("RandomSampler", params=UNIT, constraints=("x + y >= 3",)))
    with pytest.raises(SamplerFaultError, match=r"no params.*x \+ y >= 3.*expected"):
        study.ask()


def test_enqueued_params_are_completed_within_the_constraints_or_skipped() -> None:
    spec = make_spec("RandomSampler", params=UNIT, constraints=("x + y <= 1",))
    study = copy_study(spec, wait(x=0.99), wait(x=0.5, y=0.6))
    assert not list(study.skip_waiting_trials())
    params = study.ask().params
    assert params["x"] == 0.99
    assert params["y"] <= 1 - 0.99 + 1e-9
    (skipped,) = study.skip_waiting_trials()
    assert "study.constraints[0]" in skipped.reason


def test_an_enqueued_point_of_a_grid_has_what_plain_optuna_needs_to_go_on() -> None:
    spec = make_spec("GridSampler", params=POINTS)
    study = copy_study(spec, wait(n=3, kind="b"))
    first = study.ask()
    assert first.params == {"n": 3, "kind": "b"}
    ids = {first.system_attrs["grid_id"]}
    while not study.is_exhausted:
        ids.add(study.ask().system_attrs["grid_id"])
    assert ids == set(range(18))


def test_a_scrambled_sequence_goes_on_after_a_restart() -> None:
    spec = make_spec("QMCSampler", params=UNIT, args={"scramble": True})
    whole = [s.params for s in run(spec, 9)]
    study = copy_study(spec)
    attrs: dict[str, Any] = {}
    trials: list[FrozenTrial] = []
    params: list[dict[str, Any]] = []
    for number in range(9):
        if number in (1, 4, 6):
            study = StudyCopy(Start(spec, trials, study_attrs=attrs, ahead=0))
        suggestion = study.ask()
        attrs |= suggestion.study_attrs
        params.append(suggestion.params)
        study.tell(Tell(suggestion.number, TrialState.COMPLETE, [1.0], None, {}))
        trials.append(
            create_trial(
                values=[1.0], params=suggestion.params, distributions=suggestion.distributions
            )
        )
    assert params == whole


class Rubbish(RandomSampler):
    """A sampler that returns what a test gives it."""

    def __init__(self, independent: Callable[[], Any] | None, relative: Any) -> None:
        super().__init__(seed=1)
        self._independent = independent
        self._relative = relative

    def sample_relative(self, *args: Any, **kwargs: Any) -> Any:
        return self._relative

    def sample_independent(self, *args: Any, **kwargs: Any) -> Any:
        if self._independent is None:
            return super().sample_independent(*args, **kwargs)
        return self._independent()


def fail() -> None:
    raise RuntimeError("no idea")


@pytest.mark.parametrize(
    ("independent", "relative", "words"),
    [
        pytest.param(lambda: "abc", {}, "returned 'abc' for the param x", id="text"),
        pytest.param(lambda: None, {}, "returned None for the param x", id="nothing"),
        pytest.param(lambda: float("nan"), {}, "returned nan for the param x", id="nan"),
        pytest.param(lambda: 7.0, {}, "returned 7.0 for the param x", id="outside"),
        pytest.param(fail, {}, "failed in sample_independent: RuntimeError: no idea", id="raises"),
        pytest.param(None, None, "returned None from sample_relative", id="no-dict"),
    ],
)
def test_a_sampler_that_returns_rubbish_is_named_with_what_it_returned(
    independent: Callable[[], Any] | None,
    relative: Any,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def build(*_: Any) -> BaseSampler:
        return Rubbish(independent, relative)

    monkeypatch.setattr(study_copy, "build_sampler", build)
    spec = make_spec("mine.Rubbish", params=UNIT)
    with pytest.raises(SamplerFaultError, match=rf"the sampler mine\.Rubbish {words}"):
        copy_study(spec).ask()
