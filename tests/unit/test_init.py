"""`trialbus init`: a first study file, made by looking at a script."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from support.client import SPEC
from trialbus.errors import SpecError
from trialbus_services.cli.starting import command
from trialbus_services.cli.starting.printed_metrics import find_printed_line
from trialbus_services.cli.starting.script_options import read_options
from trialbus_services.config import sections
from trialbus_services.config.composing import compose_config
from trialbus_services.config.settings import TrainerSettings
from trialbus_services.launcher.launcher import Plan, make_plan
from trialbus_services.worker.params_arrival import find_arrival_problem

ARGPARSE = """\
import argparse
parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float, default=1e-3)
parser.add_argument("--width", type=int, default=64)
parser.add_argument("--optimizer", choices=["adam", "sgd"], default="adam")
parser.add_argument("--nesterov", action="store_true")
parser.add_argument("--cache", action=argparse.BooleanOptionalAction, default=True)
parser.add_argument("--epochs", type=int, default=8)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--data-dir", default="data")
args = parser.parse_args()
open("trained", "w").close()
for epoch in range(args.epochs):
    print(f"epoch {epoch}: train loss={1 / (epoch + 1):.4f} val_acc={args.lr * epoch:.2%}")
"""
CLICK = """\
import click
@click.command()
@click.option("--lr", default=0.01)
@click.option("--amp/--no-amp", default=False)
def main(lr, amp):
    open("trained", "w").close()
main()
"""
HYDRA = """\
import hydra
@hydra.main(version_base=None, config_path="conf", config_name="app")
def main(config):
    open("trained", "w").close()
main()
"""


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "app.yaml").write_text("optimizer: {lr: 0.01, name: adam}\nsteps: 5\n")


def write(text: str) -> Path:
    script = Path("train.py")
    script.write_text(text)
    return script


def test_the_file_for_a_script_with_options_is_a_study_that_can_run() -> None:
    write(ARGPARSE)
    command.run(["train.py"])
    with compose_config(["conf/train.yaml"]) as composed:
        plan = make_plan(composed)
        trainer = sections.read_trainer(composed.config)
    assert list(plan.spec.params) == ["lr", "width", "optimizer", "nesterov", "cache"]
    assert (plan.spec.budget, plan.spec.objectives[0].metric) == (8, "val_acc")
    assert trainer.argv == ["python", "train.py", "--epochs={budget}", "--seed={seed}"]
    assert trainer.switches == {"nesterov": "--nesterov", "cache": ["--cache", "--no-cache"]}
    assert not Path("trained").exists()


@pytest.mark.parametrize(
    ("text", "kind", "names"),
    [
        (ARGPARSE, "argparse", ["lr", "width"]),
        (CLICK, "click", ["lr", "amp"]),
        (HYDRA, "hydra", ["optimizer.lr", "optimizer.name"]),
        ("open('trained', 'w').close()", "none", []),
    ],
    ids=["argparse", "click", "hydra", "none"],
)
def test_options_are_read_and_the_training_does_not_run(
    text: str, kind: str, names: list[str]
) -> None:
    options = read_options(write(text))
    assert options.kind == kind
    assert [option.name for option in options.options][: len(names)] == names
    assert not Path("trained").exists()


@pytest.mark.parametrize(
    ("line", "printed", "numbers"),
    [
        (
            'print(f"Epoch {epoch} | loss={loss:.3f} | val_acc {acc}")',
            "Epoch 3 | loss=0.250 | val_acc 0.5",
            {"step": "3", "loss": "0.250", "val_acc": "0.5"},
        ),
        (
            'print("step", step, "reward", total)',
            "step 7 reward -1e-3",
            {"step": "7", "reward": "-1e-3"},
        ),
        ('logger.info(f"test f1: {f1:.2f}")', "INFO test f1: 0.91", {"f1": "0.91"}),
    ],
    ids=["f-string", "arguments", "log"],
)
def test_a_printed_line_becomes_an_expression_that_matches_it(
    line: str, printed: str, numbers: dict[str, str]
) -> None:
    found = find_printed_line(write(f"print('start')\n{line}\n"))
    assert found is not None
    match = re.search(found.pattern, printed)
    assert match is not None
    assert match.groupdict() == numbers


def compose_plan() -> Plan:
    command.run(["train.py"])
    with compose_config(["conf/train.yaml"]) as composed:
        return make_plan(composed)


@pytest.mark.parametrize("ending", ["", "\ntrial = trialbus.attach()\nlr = trial.params['lr']\n"])
def test_an_application_of_hydra_gets_its_params_as_overrides(
    ending: str, caplog: pytest.LogCaptureFixture
) -> None:
    report = "    trialbus.report(1, {'loss': config.optimizer.lr})\nmain()\n"
    write("import argparse, trialbus\n" + HYDRA.replace("main()\n", report) + ending)
    plan = compose_plan()
    assert plan.trainer is not None
    assert plan.trainer.params_as == "overrides"
    assert plan.trainer.metric_sources == []
    assert any("hydra.TrialCallback" in argument for argument in plan.trainer.argv)
    assert plan.spec.metrics == ["loss"]
    assert not caplog.messages


def test_a_script_that_reports_but_reads_its_options_gets_its_params_as_flags() -> None:
    write(ARGPARSE + "    trialbus.report(epoch, {'loss': 1.0})\n")
    plan = compose_plan()
    assert plan.trainer is not None
    assert plan.trainer.params_as == "flags"
    assert plan.trainer.metric_sources == []


def test_a_metric_that_the_script_does_not_show_is_called_a_guess(
    capsys: pytest.CaptureFixture[str],
) -> None:
    write(CLICK)
    command.run(["train.py"])
    assert "trainer.metrics and study.objective.metric are guesses" in capsys.readouterr().out
    assert "A GUESS" in Path("conf/train.yaml").read_text()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (HYDRA, "application of Hydra.*trainer=hydra"),
        ("import hydra\nhydra.main(version_base=None)(print)()", "application of Hydra"),
        ("print(1)", "shows neither .*trainer.params_as"),
        ("import loop", None),
        ("import os\nos.environ['TRIALBUS_PARAM_X']", None),
        ("import trialbus\ntrialbus.attach()", None),
    ],
    ids=["hydra", "hydra called", "no reader", "module beside", "variables", "attach"],
)
def test_a_command_whose_params_arrive_nowhere_is_warned_about(
    text: str, problem: str | None
) -> None:
    write(text)
    Path("loop.py").write_text("import trialbus\n")
    assert _find_problem(["python", "train.py"], problem)
    assert _find_problem(["python", "train.py", "{x}"], None)
    assert _find_problem(["python", "missing.py"], None)


def _find_problem(argv: list[str], problem: str | None) -> bool:
    found = find_arrival_problem(TrainerSettings(command=argv), SPEC)
    return found is None if problem is None else bool(re.search(problem, found or ""))


def test_a_script_that_reports_by_itself_needs_no_metrics() -> None:
    script = (
        ARGPARSE + "    trial = trialbus.attach()\n    lr = trial.params['lr']\n"
        "    trial.report(epoch, {'train/loss': 1.0, 'val/accuracy': 0.5})\n"
    )
    write(script)
    plan = compose_plan()
    assert plan.trainer is not None
    assert plan.trainer.metric_sources == []
    assert plan.trainer.argv == ["python", "train.py"]
    assert plan.spec.metrics == ["val/accuracy"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("import argparse\nraise RuntimeError('no GPU')\n", "failed before it read.*no GPU"),
        ("def x(:", "is no Python script"),
        (None, "No such file"),
    ],
    ids=["fails", "no Python", "missing"],
)
def test_a_script_that_cannot_be_read_is_an_error(text: str | None, problem: str) -> None:
    if text is not None:
        write(text)
    with pytest.raises(SpecError, match=problem):
        command.run(["train.py"])


def test_a_file_of_a_person_is_kept() -> None:
    write(ARGPARSE)
    Path("conf/train.yaml").write_text("mine")
    with pytest.raises(SpecError, match="is there already"):
        command.run(["train.py"])
    assert Path("conf/train.yaml").read_text() == "mine"
