"""Phases of a user's own: another class in place of the group's, and params of a study beside."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest

from trialbus_services.cli import main as cli
from trialbus_services.optimizer.attributes import END

_STUDY = """\
name: mine
n_trials: 1
objective: {metric: loss}
params: {x: {type: float, low: 0, high: 1}}
"""
_PHASE = """\
# @package _global_
study:
  name: first
  params: {y: {type: float, low: 0, high: 1}}
pruner: {type: HyperbandPruner, min_resource: 2}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in {"study/mine": _STUDY, "phase/first": _PHASE}.items():
        file = tmp_path / "conf" / f"{name}.yaml"
        file.parent.mkdir(parents=True)
        file.write_text(text)
    (tmp_path / "train.py").write_text("")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def dry_run(*arguments: str) -> int:
    trainer = "trainer.command=[python,train.py]"
    return cli.main(["study", "--config-dir", "conf", "study=mine", trainer, *arguments])


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("selection", ["phase=first", "phases=[first]"])
def test_a_phase_gets_another_class_with_its_own_arguments_and_says_whose_params_it_searches_too(
    selection: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert dry_run(selection, "--dry-run", "-v") == 0
    output = capsys.readouterr()
    assert "pruner:\n  type: HyperbandPruner\n  min_resource: 2\n" in output.out
    assert "phase 'first' searches y of its own, and x of study=mine, too" in output.err


@pytest.mark.usefixtures("folder")
def test_a_class_of_the_command_line_does_not_get_the_arguments_of_the_one_it_replaces(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert dry_run("pruner.type=HyperbandPruner", "--dry-run", "-v") == 0
    assert "pruner:\n  type: HyperbandPruner\n" in capsys.readouterr().out
    assert dry_run("pruner.type=HyperbandPruner", "pruner.n_startup_trials=7", "--dry-run") == 2
    assert "pruner.n_startup_trials: HyperbandPruner has no such" in capsys.readouterr().err


def test_a_phase_without_a_trial_that_meets_the_constraints_has_no_params_for_the_next(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    second = _PHASE.replace("study:", "from_phase: first\nstudy:").replace(
        "first\n  ", "second\n  "
    )
    (folder / "conf/phase/second.yaml").write_text(second)
    study = optuna.create_study(study_name="first", storage=f"sqlite:///{folder}/optuna_studies.db")
    study.add_trial(optuna.create_trial(values=[0.5], system_attrs={"constraints:size <= 3": 1.0}))
    study.set_user_attr(END, "exhausted")
    assert dry_run("phase=second") == 2
    error = capsys.readouterr().err
    assert (
        "'first' is not finished: study 'first' in 'sqlite:///optuna_studies.db' has 1 trials"
        in error
    )
    assert "done, no best trial and exhausted; run it first: trialbus study" in error
