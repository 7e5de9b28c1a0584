"""Sweeps of Hydra applications by `hydra/sweeper=trialbus`, each as a user starts it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import optuna
import psutil
import pytest
from omegaconf import OmegaConf
from optuna.trial import TrialState

from support.until import until

pytestmark = pytest.mark.timeout(180)  # processes that start under load

HEAD = """
import os, sys, time
import hydra, trialbus
from hydra.core.hydra_config import HydraConfig

class Part: pass
"""


class Folder:
    """A folder with an application, where sweeps are started."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, body: str, **config: Any) -> None:
        """Write an application whose function has `body`, and the app's config."""
        code = textwrap.indent(textwrap.dedent(body), "    ")
        (self.path / "app.py").write_text(
            f"{HEAD}\n"
            '@hydra.main(version_base=None, config_path=".", config_name="app")\n'
            f"def main(cfg):\n{code}\n"
            'if __name__ == "__main__":\n    main()\n'
        )
        OmegaConf.save(OmegaConf.create(config), self.path / "app.yaml")

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("TRIALBUS_")}
        return subprocess.Popen(
            [
                *(sys.executable, "app.py", "-m", "hydra/sweeper=trialbus", "hydra.sweep.dir=out"),
                *arguments,
            ],
            cwd=self.path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def sweep(self, *arguments: str, code: int = 0) -> str:
        """Run a sweep to its end, and return what it printed."""
        process = self.start(*arguments)
        output, _ = process.communicate(timeout=150)
        assert process.returncode == code, output
        return output

    def study(self, name: str = "s") -> optuna.Study:
        storage = f"sqlite:///{self.path}/optuna_studies.db"
        return optuna.load_study(study_name=name, storage=storage)

    @property
    def results(self) -> Any:
        return OmegaConf.to_container(OmegaConf.load(self.path / "out/optimization_results.yaml"))


@pytest.fixture(name="folder")
def _folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_jobs_are_jobs_of_hydra_and_values_are_what_they_return(folder: Folder) -> None:
    folder.write(
        """
        job = HydraConfig.get()
        assert job.mode.name == "MULTIRUN"
        assert isinstance(hydra.utils.instantiate({"_target_": "__main__.Part"}), Part)
        assert job.job.num == int(os.path.basename(job.runtime.output_dir))
        assert cfg.note == "a b" and cfg.added == 3
        return (cfg.x - 1) ** 2 + cfg.width
        """,
        x=0.0,
        width=1,
        note="",
    )
    folder.sweep(
        "hydra.sweeper.study_name=s",
        "hydra.sweeper.n_trials=4",
        "hydra/sweeper/sampler=random",
        "hydra.sweeper.sampler.seed=7",
        "x=interval(0,2)",
        "width=choice(1,2)",
        "note='a b'",
        "+added=3",
    )
    study = folder.study()
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 4
    assert folder.results == {
        "name": "optuna",
        "best_params": study.best_params,
        "best_value": study.best_value,
    }
    assert (folder.path / "out/multirun.yaml").is_file()
    for trial in study.trials:
        overrides = OmegaConf.load(folder.path / f"out/{trial.number}/.hydra/overrides.yaml")
        assert f"x={trial.params['x']}" in overrides
        assert (folder.path / f"out/{trial.number}/app.log").is_file()


def test_a_line_in_the_loop_prunes_and_nan_is_no_failure(folder: Folder) -> None:
    folder.write(
        """
        if HydraConfig.get().job.num == 1:
            return float("nan")
        for step in range(50):
            trialbus.report(step, {"loss": cfg.x}, wait=5)
        return cfg.x
        """,
        x=0,
    )
    folder.sweep(
        "hydra.sweeper.study_name=s",
        "hydra.sweeper.n_trials=5",
        "hydra.sweeper.n_jobs=1",
        "hydra.sweeper.metric=loss",
        "hydra.sweeper.pruner={type: ThresholdPruner, upper: 2}",
        "hydra/sweeper/sampler=grid",
        "x=range(0,4)",
    )
    trials = folder.study().trials
    pruned = [trial for trial in trials if trial.state == TrialState.PRUNED]
    assert {trial.number for trial in pruned} >= {1}
    assert len(trials) == 5
    assert all(len(t.intermediate_values) < 50 for t in pruned)
    assert all(t.params["x"] <= 2 for t in trials if t.state == TrialState.COMPLETE)


def test_params_of_a_custom_search_space_and_several_objectives(folder: Folder) -> None:
    (folder.path / "spaces.py").write_text(
        "def extend(cfg, trial):\n"
        "    x = trial.params['x']\n"
        "    trial.suggest_float('z', x, x + cfg.width)\n"
        "    trial.suggest_float('+w', 0.0, 1.0)\n"
    )
    folder.write("return cfg.z - cfg.x, cfg.w", x=0, z=9, width=0.25)
    folder.sweep(
        "hydra.sweeper.study_name=s",
        "hydra.sweeper.n_trials=4",
        "hydra.sweeper.direction=[minimize,maximize]",
        "hydra.sweeper.custom_search_space=spaces.extend",
        "x=interval(0,1)",
    )
    trials = folder.study().trials
    assert [set(trial.params) for trial in trials] == [{"x", "z", "+w"}] * 4
    assert all(0 <= trial.values[0] <= 0.25 for trial in trials)
    assert set(folder.results["solutions"][0]) == {"params", "values"}


def test_a_failed_job_ends_the_sweep_and_the_study_goes_on_with_the_count(folder: Folder) -> None:
    folder.write(
        """
        if cfg.fails and HydraConfig.get().job.num == 1:
            raise RuntimeError("cfg.fails is True")
        return cfg.x
        """,
        x=0,
        fails=False,
    )
    arguments = ("hydra.sweeper.study_name=s", "hydra.sweeper.n_jobs=1", "x=interval(0,1)")
    output = folder.sweep(*arguments, "hydra.sweeper.n_trials=6", "fails=true", code=1)
    assert "1 of 2 trials failed (hydra.sweeper.max_failure_rate=0)" in output
    assert "RuntimeError: cfg.fails is True" in output
    folder.sweep(*arguments, "hydra.sweeper.n_trials=4")
    folder.sweep(*arguments, "hydra.sweeper.n_trials=1", "hydra.sweeper.n_trials_of=call")
    states = [trial.state for trial in folder.study().trials]
    assert states == [TrialState.COMPLETE, TrialState.FAIL, *[TrialState.COMPLETE] * 3]


def test_an_interrupted_sweep_leaves_no_process_and_can_be_resumed(folder: Folder) -> None:
    folder.write("time.sleep(cfg.sleep)\nreturn cfg.x", x=0, sleep=0)
    arguments = ("hydra.sweeper.study_name=s", "hydra.sweeper.n_trials=3", "x=interval(0,1)")
    process = folder.start(*arguments, "sleep=600")
    until((folder.path / "out/1/.hydra").is_dir, timeout_s=60)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "the same command resumes the study" in output
    until(lambda: not any(child.is_running() for child in children), timeout_s=30)
    folder.sweep(*arguments)
    trials = folder.study().trials
    assert [(trial.number, trial.state) for trial in trials] == [
        (number, TrialState.COMPLETE) for number in range(3)
    ]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["hydra.sweeper.n_trials=0", "x=1,2"], "error: hydra.sweeper: n_trials 0 is below 1"),
        (["x=1,2", "hydra.sweeper.sampler.n_startup_trials=many"], "n_startup_trials"),
        (["y=1,2"], "error: hydra.sweeper.params: no job can be composed: Could not override 'y'"),
        (["x=1,2", "hydra.sweeper.storage=mine"], "error: hydra.sweeper.storage: 'mine' cannot"),
        (
            ["x=1,2", "hydra.sweeper.custom_search_space=nope.f"],
            "error: hydra.sweeper.custom_search_space: 'nope.f' cannot be imported",
        ),
    ],
    ids=["count", "sampler", "key", "storage", "function"],
)
def test_wrong_input_is_refused_before_anything_starts(
    folder: Folder, arguments: list[str], says: str
) -> None:
    folder.write("return cfg.x", x=0)
    output = folder.sweep(*arguments, code=1)
    assert says in output
    assert "Traceback" not in output
    assert not (folder.path / ".trialbus").exists()


def test_a_sweep_inside_a_trial_is_refused(folder: Folder) -> None:
    folder.write("return cfg.x", x=0)
    process = subprocess.run(
        [sys.executable, "app.py", "-m", "hydra/sweeper=trialbus", "x=1,2"],
        cwd=folder.path,
        env={**os.environ, "TRIALBUS_TRIAL": '{"study":"s","trial":0,"params":{}}'},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 1
    assert "error: hydra.mode: this Hydra application runs a sweep" in process.stderr


def test_jobs_of_the_user_s_own_launcher_report_and_have_the_number_of_the_trial(
    folder: Folder,
) -> None:
    folder.write(
        """
        number = HydraConfig.get().job.num
        trialbus.report(0, {"loss": 5.0})
        if number == 1:
            raise trialbus.TrialPruned("by the job")
        if number == 2:
            raise RuntimeError("job 2")
        return cfg.x
        """,
        x=0,
    )
    output = folder.sweep(
        "hydra.sweeper.study_name=s",
        "hydra.sweeper.n_trials=5",
        "hydra.sweeper.jobs=launcher",
        "hydra.sweeper.max_failure_rate=1",
        "hydra.sweeper.metric=loss",
        "x=interval(0,1)",
    )
    assert "Launching 2 jobs locally" in output
    assert "TRIALBUS" not in output  # variables of a job are hidden from the list of jobs
    trials = folder.study().trials
    assert [trial.state.name for trial in trials] == [
        *("COMPLETE", "PRUNED", "FAIL", "COMPLETE", "COMPLETE")
    ]
    assert all(trial.intermediate_values == {0: 5.0} for trial in trials)
    assert all(t.value == t.params["x"] for t in trials if t.state == TrialState.COMPLETE)
    assert (folder.path / "out/4/.hydra/overrides.yaml").is_file()
