"""Trials reach programs as overrides, flags, variables and files, with values hard to quote."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import optuna
import pytest

import trialbus
from support.client import load_study
from support.processes import Bus
from trialbus.testing import TestBus
from trialbus.trainer.assignment import make_environment
from trialbus_services.config.settings import ParamsAs
from trialbus_services.worker.command_line import build_environment, collect_values, fill_command
from trialbus_services.worker.trainers import CommandTrainer

EXAMPLES = Path(__file__).parents[2] / "examples"

HARD_TO_QUOTE: dict[str, Any] = {
    "optimizer.lr": 1e-07,
    "shift": -2.5e-08,
    "width": -3,
    "flag": True,
    "off": False,
    "nothing": None,
    "words": "two words, and more",
    "quotes": "it's \"quoted\" \\ back\\'s",
    "sign": "a=b${c}{d:e}[f]",
    "tick": "$(echo no) `no` ; no",
    "letters": "häßlich 模型",
    "number": "12",
    "null": "null",
    "empty": "",
    "ends": "with a backslash\\",
}

# Prints its arguments and the variables of params in its environment.
PRINT_ARGUMENTS = (
    "import json, os, sys;"
    "print(json.dumps([sys.argv[1:], {k: v for k, v in os.environ.items() if 'PARAM' in k}]))"
)

# An application of Hydra that prints its config.
APPLICATION = """
import json, hydra
from omegaconf import OmegaConf

@hydra.main(version_base=None, config_path=None)
def main(config):
    print(json.dumps(OmegaConf.to_container(config, resolve=True)))

main()
"""

# An application of Hydra that ends as its param `ending` says.
ENDING = """
import hydra, trialbus

@hydra.main(version_base=None, config_path=None)
def main(config):
    match config.ending:
        case "value": return 0.25
        case "values": return [1, 2.5]
        case "text": return "good"
        case "raise": raise RuntimeError("no luck")
        case "report":
            with trialbus.attach(budget=3) as trial:
                for step in range(trial.budget):
                    trial.report(step, {"loss": step})
        case "prune":
            trial = trialbus.attach()
            while True:
                trial.report(0, {"loss": 1.0}, wait=0.01)

main()
"""


def make_assignment(params: dict[str, Any]) -> trialbus.TrialAssigned:
    return trialbus.TrialAssigned(
        study="s p", trial=7, attempt=2, request="", session="", params=params, seed=11, budget=5
    )


async def run_and_print(
    params_as: ParamsAs, folder: Path, *arguments: str
) -> tuple[list[str], Any]:
    """Run a program for a trial and return the arguments and variables of the process."""
    trainer = CommandTrainer(
        command=[sys.executable, "-c", PRINT_ARGUMENTS, *arguments],
        runs=folder / "runs",
        params_as=params_as,
    )
    done = await trainer.run(make_assignment(HARD_TO_QUOTE), {}, folder / "log")
    assert done.code == 0, done.log_tail
    received_arguments, variables = json.loads(done.log_tail)
    return received_arguments, variables


@pytest.fixture
def memory_bus() -> Iterator[TestBus]:
    with TestBus() as bus:
        yield bus


async def test_flags_carry_every_value_in_one_argument_each(tmp_path: Path) -> None:
    flags, _ = await run_and_print("flags", tmp_path)
    values = dict(flag.removeprefix("--").split("=", 1) for flag in flags)
    assert "nothing" not in values  # the program's own default
    for name, value in values.items():
        expected = HARD_TO_QUOTE[name]
        assert value == (expected if isinstance(expected, str) else json.dumps(expected))


async def test_the_environment_has_a_variable_for_each_param(tmp_path: Path) -> None:
    _, variables = await run_and_print("environment", tmp_path)
    assert len(variables) == len(HARD_TO_QUOTE)
    assert variables["TRIALBUS_PARAM_OPTIMIZER_LR"] == "1e-07"
    assert variables["TRIALBUS_PARAM_QUOTES"] == HARD_TO_QUOTE["quotes"]
    assert variables["TRIALBUS_PARAM_NOTHING"] == ""
    assert variables["TRIALBUS_PARAM_FLAG"] == "true"


async def test_params_that_would_share_a_variable_are_refused(tmp_path: Path) -> None:
    trainer = CommandTrainer(command=["true"], runs=tmp_path)
    with pytest.raises(ValueError, match=r"'a\.b' and another param are both .TRIALBUS_PARAM_A_B"):
        await trainer.run(make_assignment({"a_b": 1, "a.b": 2}), {}, tmp_path / "log")


@pytest.mark.parametrize("named", [True, False], ids=["named in the command", "put after it"])
def test_a_file_holds_the_params_as_json(tmp_path: Path, *, named: bool) -> None:
    arguments = ["in={params_file}"] if named else []
    (argument,), _ = asyncio.run(run_and_print("file", tmp_path, *arguments))
    path = Path(argument.removeprefix("in="))
    assert argument.startswith("in=") == named
    assert json.loads(path.read_text()) == HARD_TO_QUOTE
    assert path.is_relative_to(tmp_path / "runs")


async def test_overrides_reach_a_hydra_application_as_they_were(tmp_path: Path) -> None:
    trainer = CommandTrainer(
        command=[sys.executable, "-c", APPLICATION],
        runs=tmp_path / "runs",
        params_as="overrides",
        cwd=str(tmp_path),
    )
    params = {f"+{name}": value for name, value in HARD_TO_QUOTE.items()}
    done = await trainer.run(make_assignment(params), {}, tmp_path / "log")
    assert done.code == 0, done.log_tail
    config = json.loads(done.log_tail)
    assert config.pop("optimizer") == {"lr": 1e-07}
    assert config == {
        name: value for name, value in HARD_TO_QUOTE.items() if name != "optimizer.lr"
    }


CONFIGURED = trialbus.TrialAssigned(
    study="s",
    trial=0,
    request="",
    session="",
    params={"model.width": 64, "optimizer": "adam"},
    config={"model": {"width": 8, "depth": 2}, "sizes": [1, {"a b": "x, y"}], "optimizer.lr": 0.1},
    config_name="small",
)


@pytest.mark.parametrize(
    ("params_as", "expected"),
    [
        (
            "overrides",
            [
                *("--config-name=small", "model.width=64", "model.depth=2"),
                *("sizes=[1,{a\\ b:'x, y'}]", "optimizer.lr=0.1", "optimizer=adam"),
            ],
        ),
        (
            "flags",
            [
                *("--model.width=64", "--model.depth=2", '--sizes=[1, {"a b": "x, y"}]'),
                *("--optimizer.lr=0.1", "--optimizer=adam"),
            ],
        ),
    ],
)
def test_what_the_study_configures_goes_the_way_of_the_params_which_win(
    params_as: ParamsAs, expected: list[str], tmp_path: Path
) -> None:
    assert fill_command(["run"], params_as, CONFIGURED, tmp_path) == ["run", *expected]


def test_files_and_variables_have_what_the_study_configures_too(tmp_path: Path) -> None:
    values = {
        "model.width": 64,
        "model.depth": 2,
        "sizes": [1, {"a b": "x, y"}],
        "optimizer.lr": 0.1,
        "optimizer": "adam",
    }
    fill_command(["run"], "file", CONFIGURED, tmp_path)
    assert json.loads((tmp_path / "params.json").read_text()) == values
    assert collect_values(CONFIGURED) == values
    assert build_environment(values)["TRIALBUS_PARAM_MODEL_WIDTH"] == "64"
    assert build_environment(values)["TRIALBUS_PARAM_SIZES"] == '[1, {"a b": "x, y"}]'


async def test_a_hydra_application_begins_with_the_config_that_is_named(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(
        "env: {size: 3, name: maze}\nsizes: []\nmodel: {width: 1}\n"
    )
    trainer = CommandTrainer(
        command=[sys.executable, "-c", APPLICATION, f"--config-dir={tmp_path}"],
        runs=tmp_path / "runs",
        params_as="overrides",
        cwd=str(tmp_path),
    )
    trial = msgspec.structs.replace(
        CONFIGURED,
        config={"env": {"size": 5}, "sizes": [1, {"a b": 2}]},
        params={"model.width": 64},
    )
    done = await trainer.run(trial, {}, tmp_path / "log")
    assert done.code == 0, done.log_tail
    assert json.loads(done.log_tail) == {
        "env": {"size": 5, "name": "maze"},
        "sizes": [1, {"a b": 2}],
        "model": {"width": 64},
    }


def test_placeholders_are_filled_in_once_and_braces_left_alone() -> None:
    command = ["run", "{study}-{trial}-{attempt}-{seed}-{budget}", "{run_dir}", "{{other}}", "{}"]
    trial = trialbus.TrialAssigned(
        study="{seed}", trial=7, request="", session="", params={}, seed=11
    )
    assert fill_command(command, "environment", trial, Path("/runs/7")) == [
        "run",
        "{seed}-7-0-11-",
        "/runs/7",
        "{other}",
        "{}",
    ]


@pytest.mark.parametrize(
    ("ending", "end", "error"),
    [
        ("value", ("complete", [0.25]), ""),
        ("values", ("complete", [1.0, 2.5]), ""),
        ("text", ("failed", None), "the objective is 'good', expected a number"),
        ("raise", ("failed", None), "RuntimeError: no luck"),
        ("report", ("complete", None), ""),
        ("prune", ("pruned", None), ""),
    ],
)
async def test_a_hydra_application_ends_its_trial_by_what_it_returns(
    memory_bus: TestBus,
    tmp_path: Path,
    ending: str,
    end: tuple[str, list[float] | None],
    error: str,
) -> None:
    trial = make_assignment({"+ending": ending})
    trainer = CommandTrainer(
        command=[
            *(sys.executable, "-c", ENDING, "hydra.run.dir='{run_dir}'"),
            "++hydra.callbacks.trialbus._target_=trialbus.callbacks.hydra.TrialCallback",
        ],
        runs=tmp_path / "runs",
        params_as="overrides",
        cwd=str(tmp_path),
    )
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(
            trainer.run(trial, make_environment(trial, memory_bus.endpoint), tmp_path / "log")
        )
        if ending == "prune":
            tasks.create_task(
                asyncio.to_thread(memory_bus.prune, study=trial.study, trial=7, attempt=2)
            )
    done = running.result()
    (finished,) = memory_bus.events(trialbus.TrialFinished)
    assert (finished.state, finished.values) == end, done.log_tail
    assert error in str(finished.error)
    assert len(memory_bus.events(trialbus.TrialStarted)) == 1
    (folder,) = (tmp_path / "runs").glob("*/7")
    assert (folder / ".hydra" / "overrides.yaml").exists()


@pytest.mark.parametrize("has_callback", [True, False], ids=["callback", "attach"])
@pytest.mark.parametrize(
    "overrides", [["--multirun"], ["hydra.mode=MULTIRUN"]], ids=["option", "mode"]
)
def test_a_sweep_of_a_hydra_application_is_no_trial(
    memory_bus: TestBus, tmp_path: Path, overrides: list[str], has_callback: bool
) -> None:
    trial = make_assignment({})
    callback = "++hydra.callbacks.trialbus._target_=trialbus.callbacks.hydra.TrialCallback"
    ending = "+ending=value,values" if has_callback else "+ending=report,prune"
    done = subprocess.run(
        [
            *(sys.executable, "-c", ENDING, *overrides, ending),
            *([callback] if has_callback else []),
        ],
        cwd=tmp_path,
        env=os.environ | make_environment(trial, memory_bus.endpoint),
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 1
    assert "this Hydra application runs a sweep" in done.stderr
    assert memory_bus.events(trialbus.TrialFinished) == []


def test_without_a_trial_the_callback_does_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-c", ENDING, "+ending=value"),
            "++hydra.callbacks.trialbus._target_=trialbus.callbacks.hydra.TrialCallback",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
    )
    assert done.stderr == ""


@pytest.mark.timeout(120)
def test_an_unmodified_hydra_application_is_optimized(bus: Bus) -> None:
    study = bus.service(
        "study",
        *("--config-dir", str(EXAMPLES / "conf")),
        "storage.url=sqlite:///studies.db",
        "study=hydra_app",
        "study.n_trials=4",
        "+study.trial_overrides={epochs: 7}",
        "trainer=hydra",
        f"trainer.command=[{sys.executable},{EXAMPLES / 'hydra_app.py'}]",
    )
    assert study.wait(100) == 0, study.printed()
    trials = load_study(bus, "hydra_app").trials
    assert [trial.state for trial in trials] == [optuna.trial.TrialState.COMPLETE] * 4
    assert all(0 < trial.values[0] <= 1 for trial in trials)
    overrides = [path.read_text() for path in bus.directory.glob("**/.hydra/overrides.yaml")]
    assert len(overrides) == 4
    assert all("- epochs=7\n" in text for text in overrides)
