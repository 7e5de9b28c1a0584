"""Commands with placeholders, switches and a place for the params."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import trialbus
from trialbus.errors import SpecError
from trialbus.study.validation import convert
from trialbus_services.config import sections
from trialbus_services.config.composing import compose_config
from trialbus_services.config.settings import ParamsAs, TrainerSettings
from trialbus_services.worker.command_line import build_command
from trialbus_services.worker.placeholders import check_placeholders

TRIAL = trialbus.TrialAssigned(
    study="{seed}",
    trial=3,
    params={"lr": 0.1, "optimizer.lr": 0.5, "amp": True, "cache": False},
    seed=7,
    config={"data": "digits"},
)
SPEC = trialbus.StudySpec(
    name="s",
    params={
        "lr": trialbus.FloatParam(low=0, high=1),
        "kind": trialbus.CategoricalParam(choices=("mlp", "vit")),
        "heads": trialbus.IntParam(low=1, high=8, when={"kind": "vit"}),
    },
    objectives=(trialbus.Objective(metric="acc"),),
    n_trials=1,
    base_config={"data": "digits"},
)


def build(*command: str, params_as: ParamsAs = "flags", **switches: Any) -> list[str]:
    folder = Path("/run")
    return build_command(
        command, params_as, TRIAL, run_dir=folder, params_file=folder / "p.json", switches=switches
    )


def test_names_of_values_are_filled_in_anywhere_and_given_once() -> None:
    assert build("train", "--rate={lr}/{optimizer.lr}", "{data}", "{study}-{seed}") == [
        *("train", "--rate=0.1/0.5", "digits", "{seed}-7"),
        *("--amp=true", "--cache=false"),
    ]


def test_the_params_stand_where_the_command_says() -> None:
    command = build("sh", "{args}", "-v", params_as="overrides")
    assert command[-1] == "-v"
    assert "lr=0.1" in command
    assert build("sh", "{args}", "-v", params_as="file") == ["sh", "/run/p.json", "-v"]
    assert build("sh", "{params_file}", params_as="file") == ["sh", "/run/p.json"]


def test_an_option_without_a_value_is_there_or_not() -> None:
    command = build("t", amp="--amp", cache=["--cache", "--no-cache"])
    assert command[-2:] == ["--amp", "--no-cache"]
    assert not any(argument.startswith("--amp=") for argument in command)


def test_doubled_braces_are_braces() -> None:
    assert build("awk", "{{print}} {trial}")[1] == "{print} 3"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("--lr={lrr}", "{lrr} in '--lr={lrr}' has no value; did you mean 'lr'?"),
        ("{heads}", "{heads} in '{heads}' is not in every trial"),
        ("x{args}", "{args} in 'x{args}' (expected an argument of its own)"),
    ],
    ids=["unknown", "conditional", "inside"],
)
def test_a_placeholder_that_stays_empty_is_refused_before_a_start(text: str, problem: str) -> None:
    with pytest.raises(SpecError) as raised:
        check_placeholders("trainer.command", ["python", text], SPEC)
    assert problem in str(raised.value)
    check_placeholders("trainer.command", ["{lr}", "{data}", "{run_dir}", "{args}"], SPEC)


def test_a_command_may_be_a_line_of_a_shell() -> None:
    trainer = convert("trainer", {"command": "python 'my train.py' -v"}, TrainerSettings)
    assert trainer.argv == ["python", "my train.py", "-v"]


@pytest.mark.parametrize(
    ("trainer", "problem"),
    [
        ({"command": "python 'train.py"}, "no line of a shell"),
        ({"function": "a:b", "metrics": {"stdout": "json"}}, "metrics are for a command"),
        ({"command": "a", "switches": {"x": ["a"]}, "params_as": "flags"}, "switches.x"),
        ({"command": "a", "switches": {"x": "--x"}}, "switches need params_as=flags"),
    ],
    ids=["quote", "function", "one form", "no flags"],
)
def test_a_wrong_trainer_is_refused(trainer: dict[str, Any], problem: str) -> None:
    with pytest.raises(SpecError, match=problem):
        convert("trainer", trainer, TrainerSettings)


def test_a_package_that_a_source_of_metrics_lacks_is_named_before_a_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nothing: dict[str, object] = {}
    monkeypatch.setattr(sections, "find_spec", nothing.get)
    arguments = ["trainer=command", "trainer.command=[sh]", "trainer.metrics={tensorboard: runs}"]
    with compose_config(arguments) as composed, pytest.raises(SpecError) as raised:
        sections.read_trainer(composed.config)
    assert 'pip install "trialbus[tensorboard]"' in str(raised.value)
