"""Phases: each keeps the best params of the phase before; tasks of poe run phases."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest

from support import trainer
from support.processes import Bus
from trialbus_services.optimizer.attributes import END, SPEC

pytestmark = pytest.mark.timeout(180)  # several studies in a row

ROOT = Path(__file__).parents[2]

#: A trial of the first phase, as plain Optuna makes it.
OF_ONE: dict[str, Any] = {
    "params": {"x": 0.5, "y": "a"},
    "distributions": {
        "x": optuna.distributions.FloatDistribution(-2, 2),
        "y": optuna.distributions.CategoricalDistribution(["a", "b"]),
    },
}


@pytest.fixture(autouse=True)
def conf(bus: Bus) -> Path:
    """Two phases in a user's config tree, with a study in that tree."""
    folder = bus.directory / "conf"
    (folder / "phase").mkdir(parents=True)
    (folder / "study").mkdir()
    (folder / "study" / "base.yaml").write_text(
        "objective: {metric: loss, direction: minimize}\nname: base\nn_trials: 3\nparams: ???\n"
    )
    head = "# @package _global_\ndefaults: [override /study: base, override /sampler: random]\n"
    command = f'[{sys.executable}, {trainer.__file__}, "2", "0.0", end]'
    body = f"trainer: {{command: {command}}}\npruner: null\n"
    (folder / "phase" / "first.yaml").write_text(
        f"{head}{body}study: {{name: one, params: {{x: 'interval(-2, 2)', y: 'choice(a, b)'}}}}\n"
    )
    (folder / "phase" / "second.yaml").write_text(
        f"{head}{body}from_phase: first\n"
        "study: {name: two, params: {x: 'interval(-1, 1)', z: 'choice(1, 2)'}}\n"
    )
    return folder


def run(bus: Bus, *overrides: str) -> tuple[int, str]:
    process = bus.service("study", "--config-dir", "conf", *overrides)
    code = process.wait(90)
    printed = process.printed()
    process.log.write_text("")
    return code, printed


def stored(bus: Bus, name: str) -> optuna.Study:
    return optuna.load_study(
        study_name=name, storage=f"sqlite:///{bus.directory}/optuna_studies.db"
    )


def inherited(bus: Bus, name: str) -> dict[str, Any]:
    return stored(bus, name).user_attrs[SPEC]["inherited"]


def test_phases_run_in_order_each_with_the_best_params_of_the_one_before(bus: Bus) -> None:
    code, printed = run(bus, "phase=second")
    assert code == 2
    assert "from_phase: 'first' has no study 'one'" in printed
    assert "run it first: trialbus study --config-dir=conf " in printed
    assert "phase=first" in printed
    assert not (bus.directory / "optuna_studies.db").exists(), "something was started"

    code, printed = run(bus, "phase=all", "phases=[first,second]")
    assert code == 0, printed
    best = stored(bus, "one").best_trial
    for trial in stored(bus, "two").trials:
        assert trial.params["y"] == best.params["y"]
        assert trial.params.keys() == {"x", "y", "z"}
    assert "searched again: x" in printed
    assert inherited(bus, "two") == {
        "phase": "first",
        "study": "one",
        "trial": best.number,
        "values": best.values,
        "params": best.params,
    }

    code, printed = run(bus, "phase=all", "phases=[first,second]")
    assert code == 0
    assert "phase first (1 of 2): finished, 3 trials, best" in printed
    assert "phase second (2 of 2): finished, 3 trials, best" in printed
    assert len(stored(bus, "two").trials) == 3


def test_an_unfinished_phase_is_no_ground_for_the_next_and_a_started_one_keeps_its_params(
    bus: Bus,
) -> None:
    """Also when the phase before continues and finds better ones."""
    storage = f"sqlite:///{bus.directory}/optuna_studies.db"
    one = optuna.create_study(study_name="one", storage=storage, direction="minimize")
    one.add_trial(optuna.create_trial(**OF_ONE, value=3.0))
    code, printed = run(bus, "phase=second")
    assert code == 2
    assert "'first' is not finished: study 'one'" in printed
    assert "has 1 trials done" in printed
    one.set_user_attr(END, "exhausted")
    code, printed = run(bus, "phase=second", "study.n_trials=1")
    assert code == 0, printed
    assert inherited(bus, "two")["trial"] == 0
    one.add_trial(optuna.create_trial(**OF_ONE, value=1.0))
    code, printed = run(bus, "phase=second", "study.n_trials=2")
    assert code == 0, printed
    assert inherited(bus, "two")["trial"] == 0
    assert len(stored(bus, "two").trials) == 2


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["phase=second", "from_phase=frist"], "there is no phase 'frist'; did you mean 'first'?"),
        (["phase=all", "phases=[frist]"], "there is no phase 'frist'; did you mean 'first'?"),
        (["phase=all", "study.name=x"], "would give every one of"),
        (["phase=all", "phases=first"], "phases: Expected `array`"),
        (["phase=second", "storage=memory"], "'memory://' keeps no study"),
    ],
    ids=str,
)
def test_phases_that_cannot_be_run_are_refused_before_anything_starts(
    bus: Bus, overrides: list[str], words: str
) -> None:
    code, printed = run(bus, *overrides)
    assert code == 2
    assert words in printed
    assert "Traceback" not in printed
    assert not (bus.directory / "log").exists()


def test_poe_runs_the_first_phase_of_the_example_and_hands_overrides_on(bus: Bus) -> None:
    arguments = ["study.n_trials=1", "study.budget=2", f"bus.endpoint={bus.endpoint}"]
    # Its own folder for all it writes; the tasks are those of the checkout.
    done = subprocess.run(
        [
            *(sys.executable, "-m", "poethepoet", "-C", str(ROOT), "optuna-foundation"),
            *(*arguments, f"bus.dir={bus.directory}/log", f"report.dir={bus.directory}/reports"),
            f"storage.url=sqlite:///{bus.directory}/optuna_studies.db",
        ],
        cwd=bus.directory,
        # As in an environment that is active; poe finds one in `.venv` by itself.
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 complete" in done.stdout
    [trial] = stored(bus, "foundation").trials
    assert trial.intermediate_values.keys() == {0, 1}
    assert "agent.lr" in trial.params
