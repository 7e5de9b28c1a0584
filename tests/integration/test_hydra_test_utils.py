"""The sweeper by the utilities that Hydra has for the tests of sweepers."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from hydra.test_utils.test_utils import TSweepRunner

pytestmark = pytest.mark.timeout(120)


@pytest.mark.parametrize("jobs", ["fork", "launcher"])
def test_jobs_are_launched(
    hydra_sweep_runner: TSweepRunner, jobs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sweep = hydra_sweep_runner(
        calling_file=None,
        calling_module="hydra.test_utils.a_module",
        config_path="configs",
        config_name="compose.yaml",
        task_function=None,
        overrides=[
            *("hydra/sweeper=trialbus", "hydra/launcher=basic", f"hydra.sweeper.jobs={jobs}"),
            *("hydra.sweeper.n_trials=4", "hydra.sweeper.n_jobs=3", "foo=1,2", "bar=4,5,6,7,8"),
            *("hydra.sweeper.study_name=s", "hydra.job.chdir=false"),
        ],
    )
    with sweep:
        assert sweep.returns is None
        assert sweep.temp_dir is not None
        assert len(list(Path(sweep.temp_dir).glob("*/.hydra"))) == 4
    study = optuna.load_study(study_name="s", storage="sqlite:///optuna_studies.db")
    assert [trial.value for trial in study.trials] == [100.0] * 4
