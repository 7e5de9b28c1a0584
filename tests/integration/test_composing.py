"""The command line with Hydra: dry runs, completion, users' config trees, stored provenance."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest

from support.commands import small_study
from support.processes import Bus
from trialbus_services.optimizer.attributes import METRICS, ORIGIN

TRIALBUS = str(Path(sys.executable).with_name("trialbus"))

#: Completes a command line as bash does, and prints the completions.
COMPLETE = """
eval "$(trialbus study --shell-completion install=bash)"
complete -p trialbus
COMP_LINE=$1; COMP_POINT=${#COMP_LINE}
COMP_WORDS=($COMP_LINE); [[ $COMP_LINE == *' ' ]] && COMP_WORDS+=('')
COMP_CWORD=$(( ${#COMP_WORDS[@]} - 1 ))
hydra_bash_completion
printf '%s\\n' "${COMPREPLY[@]}"
"""

#: A training that reports a metric by the callbacks of the config.
BY_CALLBACKS = """
import trialbus
from trialbus.callbacks import CallbackFactory

with trialbus.attach() as trial, CallbackFactory().build(trial) as callbacks:
    for step in range(4):
        callbacks.report(step, {"loss": trial.params["x"] ** 2, "time": 1.0})
"""


def run(*arguments: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [TRIALBUS, *arguments],
        cwd=cwd,
        env={k: v for k, v in os.environ.items() if not k.startswith("TRIALBUS_")} | env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("trialbus st", ["status", "study"]),
        ("trialbus study sampler=", ["sampler=tpe", "sampler=grid"]),
        ("trialbus study pruner=none study.n_tr", ["study.n_trials="]),
        ("trialbus worker launcher=", ["launcher=local", "launcher=none"]),
        ("trialbus study callbacks.optuna.metric", ["callbacks.optuna.metric_name="]),
        ("trialbus study --config-dir conf pruner=none study=", ["study=digits", "study=mine"]),
    ],
)
def test_bash_completes_subcommands_groups_choices_and_keys(
    line: str, expected: list[str], tmp_path: Path
) -> None:
    (tmp_path / "conf" / "study").mkdir(parents=True)
    (tmp_path / "conf" / "study" / "mine.yaml").write_text("name: mine\n")
    done = subprocess.run(
        ["bash", "-c", COMPLETE, "bash", line],
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{Path(TRIALBUS).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    rule, *completions = done.stdout.splitlines()
    assert rule.endswith("-F hydra_bash_completion trialbus")
    assert set(expected) <= set(completions)
    prefix = line.rpartition(" ")[2]
    assert all(word.startswith(prefix) for word in completions)


@pytest.mark.parametrize(
    ("overrides", "texts"),
    [
        (
            ["trainer.params_as=overrides"],
            ["command: python train.py x=0.5", "params: {x: 0.5}", "x: {type: float, low: -2.0"],
        ),
        (
            ["trainer.params_as=file"],
            ["python train.py ", "/.trialbus/runs/quadratic/0/params.json"],
        ),
        (["+trainer.env.WANDB_API_KEY=abc"], ["TRIALBUS_PARAM_X: '0.5'", "WANDB_API_KEY: '***'"]),
        (["launcher=none", "~trainer"], ["command: none; trainings ask for their trials"]),
        (["storage.url=postgresql+psycopg://me:pw7@h/d"], ["postgresql+psycopg://me:***@h/d"]),
    ],
)
def test_a_dry_run_prints_config_space_and_first_command_and_makes_nothing(
    overrides: list[str], texts: list[str], tmp_path: Path
) -> None:
    (tmp_path / "train.py").write_text("")
    study = [o for o in small_study() if not o.startswith("trainer.")]
    enqueue = ["study.enqueue=[{x:0.5}]", "trainer=command", "trainer.command=[python,train.py]"]
    done = run("study", "--dry-run", "-v", *study, *enqueue, *overrides, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for text in ["# The study", "trials: 8", "# The config", "n_trials: 8", *texts]:
        assert text in done.stdout
    assert "pw7" not in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["train.py"]


def test_a_study_keeps_where_it_comes_from_without_passwords(bus: Bus) -> None:
    folder = bus.directory
    git = ["git", "-c", "user.name=me", "-c", "user.email=me@example.org"]
    (folder / "train.py").write_text("1\n")
    for command in (["init", "-q"], ["add", "train.py"], ["commit", "-qm", "first"]):
        subprocess.run([*git, *command], cwd=folder, check=True)
    commit = subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=folder, text=True).strip()
    (folder / "train.py").write_text("2\n")
    study = bus.service(
        "study",
        *small_study(steps=1, step_s=0.0, n_trials=2),
        "+trainer.env.MY_TOKEN=hunter2",
    )
    assert study.wait(60) == 0, study.printed()
    stored = optuna.load_study(
        study_name="quadratic", storage=f"sqlite:///{folder}/optuna_studies.db"
    )
    origin: dict[str, Any] = stored.user_attrs[ORIGIN]
    assert origin["git"] == {"commit": commit, "dirty": True}
    assert origin["versions"]["optuna"] == optuna.__version__
    assert origin["config"]["study"]["n_trials"] == 2
    assert origin["config"]["sampler"] == {"type": "RandomSampler"}
    assert origin["command"].startswith("trialbus study ")
    assert "study.n_trials=2" in origin["command"]
    assert "hunter2" not in str(origin)


def test_the_config_s_callbacks_reach_a_training_through_services_of_the_same_tree(
    bus: Bus,
) -> None:
    """The services compose the user's tree too, with the search path and the primary config."""
    folder = bus.directory
    (folder / "train.py").write_text(BY_CALLBACKS)
    for name, text in {
        "conf/mine.yaml": "defaults: [config, {override sampler: lab}, _self_]\n",
        "lab/sampler/lab.yaml": "type: RandomSampler\n",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    study = bus.service(
        "study",
        "--config-dir=conf",
        "--config-name=mine",
        f"hydra.searchpath=[{folder}/lab]",
        *(o for o in small_study(n_trials=2) if not o.startswith(("trainer.", "sampler"))),
        f"trainer.command=[{sys.executable},train.py]",
        "callbacks.optuna.metric_name=loss",
        "callbacks.optuna.report_interval=2",
    )
    assert study.wait(60) == 0, study.printed()
    stored = optuna.load_study(
        study_name="quadratic", storage=f"sqlite:///{folder}/optuna_studies.db"
    )
    for trial in stored.trials:
        assert sorted(trial.intermediate_values) == [0, 2]
        assert set(trial.user_attrs[METRICS]) == {"loss"}
    assert stored.user_attrs[ORIGIN]["config"]["callbacks"]["optuna"]["metric_name"]


@pytest.mark.parametrize(
    ("override", "error"),
    [
        (
            "sampler=random,tpe",
            (
                "error: study.name: 'quadratic' is the study of two jobs of --multirun, the job of "
                "sampler=random and the job of sampler=tpe; give each job a study of its own, for "
                "example by 'study.name=quadratic-${hydra:job.num}'"
            ),
        ),
        ("hydra.job.chdir=true", "error: hydra.job.chdir: true would move the bus"),
    ],
    ids=["one study", "another folder"],
)
def test_a_multirun_of_wrong_jobs_is_refused_before_any_job_runs(
    bus: Bus, override: str, error: str
) -> None:
    study = bus.service(
        "study",
        "--multirun",
        *small_study(steps=1, step_s=0.0, n_trials=1),
        override,
        f"hydra.sweep.dir={bus.directory}/sweep",
    )
    assert study.wait(60) == 2
    assert error in study.printed()
    assert not (bus.directory / "sweep").exists()


def test_several_studies_run_one_after_the_other(bus: Bus) -> None:
    study = bus.service(
        "study",
        "--multirun",
        *small_study(steps=1, step_s=0.0, n_trials=1),
        "study.name=first,second",
        f"hydra.sweep.dir={bus.directory}",
    )
    assert study.wait(60) == 0, study.printed()
    storage = f"sqlite:///{bus.directory}/optuna_studies.db"
    assert set(optuna.get_all_study_names(storage)) == {"first", "second"}
