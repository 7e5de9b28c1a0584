"""A study whose recorded trials have other params."""

from __future__ import annotations

from pathlib import Path

import msgspec
import optuna
import pytest

import trialbus
from trialbus.errors import SpecError
from trialbus_services.launcher.storage_check import check_recorded_study
from trialbus_services.optimizer.attributes import SPEC as SPEC_KEY
from trialbus_services.optimizer.recorded_study import check_names

X, Y = trialbus.FloatParam(low=0, high=1), trialbus.FloatParam(low=0, high=2)
SPEC = trialbus.StudySpec(
    name="s", params={"x": X}, objectives=(trialbus.Objective(metric="m"),), n_trials=3
)


def make_trials(*names: str) -> list[optuna.trial.FrozenTrial]:
    study = optuna.create_study()
    trial = study.ask()
    for name in names:
        trial.suggest_float(name, 0, 1)
    return study.trials


@pytest.mark.parametrize(
    ("params", "problem"),
    [
        ({"x": X, "y": Y}, "y is new"),
        ({"z": X}, "z is new, x is left out"),
    ],
    ids=["added", "renamed"],
)
def test_other_params_under_the_same_name_are_refused_unless_allowed(
    params: dict[str, trialbus.FloatParam], problem: str
) -> None:
    changed = msgspec.structs.replace(SPEC, params=params)
    with pytest.raises(SpecError, match=f"{problem}.*study.allow_space_change=true"):
        check_names(changed, SPEC, make_trials("x"))
    allowed = msgspec.structs.replace(changed, allow_space_change=True)
    check_names(allowed, SPEC, make_trials("x"))
    check_names(changed, SPEC, [])


def test_a_range_may_change_and_a_param_with_a_condition_may_have_been_in_no_trial() -> None:
    check_names(msgspec.structs.replace(SPEC, params={"x": Y}), SPEC, make_trials("x"))
    kind = trialbus.CategoricalParam(choices=("a", "b"))
    conditional = msgspec.structs.replace(
        SPEC, params={"x": X, "kind": kind, "y": msgspec.structs.replace(Y, when={"kind": "b"})}
    )
    check_names(conditional, conditional, make_trials("x", "kind"))


def test_a_study_that_goes_on_with_another_range_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    study = optuna.create_study(storage=url, study_name="s", direction="maximize")
    study.set_user_attr(SPEC_KEY, msgspec.to_builtins(SPEC))
    caplog.clear()
    check_recorded_study(url, SPEC)
    assert not caplog.messages
    check_recorded_study(url, msgspec.structs.replace(SPEC, params={"x": Y}))
    assert caplog.messages == [
        "study 's' goes on with other ranges: x was 0.0 to 1.0, and is 0 to 2 now"
    ]
