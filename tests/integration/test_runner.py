"""OptunaRunner: the studies of a spec on a real bus, with results, storage and checkpoints."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
from hydra import compose, initialize_config_dir
from rich.console import Console

import trialbus
from support import runner_training
from support.processes import Bus
from trialbus_services import OptunaRunner
from trialbus_services.optimizer.attributes import METRICS, SLOT
from trialbus_services.runner import RunnerSpec

pytestmark = pytest.mark.timeout(180)  # several studies in a row

PARAMETERS = [{"name": "agent.x", "type": "float", "low": 1.0, "high": 5.0}]


def study(name: str, **fields: Any) -> dict[str, Any]:
    return {
        "study_name": name,
        "parameters": PARAMETERS,
        "n_trials": 3,
        "episodes_per_trial": 2,
        "evaluation_interval": 4,
        "trial_overrides": {"agent": {"depth": 7}},
        "sampler": {"type": "RandomSampler", "seed": 1},
        **fields,
    }


def runner(bus: Bus, *studies: dict[str, Any], **fields: Any) -> OptunaRunner:
    trainer = fields.pop("trainer", runner_training.train)
    return OptunaRunner(
        spec={"studies": list(studies), **fields},
        trainer=trainer,
        overrides=[f"bus.endpoint={bus.endpoint}", "bus.dir=log", "worker.gpus=[3,5]"],
        console=Console(file=io.StringIO()),
    )


@pytest.fixture(autouse=True)
def _here(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(bus.directory)


def test_a_function_is_trained_with_all_that_the_spec_says_and_results_are_written(
    bus: Bus,
) -> None:
    running = runner(bus, study("one", keep_best_n=1), max_concurrent_trials=2)
    assert isinstance(running.spec, RunnerSpec)
    done = running.run_study(running.spec.studies[0])
    assert isinstance(done, optuna.Study)
    assert [trial.value for trial in done.trials] == [t.params["agent.x"] - 1 for t in done.trials]
    slots = [trial.user_attrs[SLOT] for trial in done.trials]
    reached = [trial.user_attrs[METRICS] for trial in done.trials]
    assert [metrics["gpu"] for metrics in reached] == [{0: 3.0, 1: 5.0}[slot] for slot in slots]
    assert {(metrics["depth"], metrics["interval"]) for metrics in reached} == {(7.0, 4.0)}
    # Each training's own callback heard of the first evaluation before the second was reported.
    assert {metrics["counted"] for metrics in reached} == {1.0}

    results = json.loads(Path("sweep_results/one_results.json").read_text())
    assert results["best"]["params"] == done.best_params
    assert [row["value"] for row in results["trials"]] == [trial.value for trial in done.trials]
    assert json.loads(Path("sweep_results/one/best_params.json").read_text()) == done.best_params
    folder = str(Path("sweep_results").absolute())
    with initialize_config_dir(folder, version_base="1.3"):
        config = compose(overrides=["+one=best_config"])
    assert config.agent == {"depth": 7, "x": done.best_params["agent.x"]}
    assert not Path("sweep_results/one/report.html").exists()
    kept = [path.name for path in Path(".trialbus/checkpoints/one").iterdir()]
    assert kept == [str(done.best_trial.number)]

    again = runner(bus, study("one", load_if_exists=False))
    with pytest.raises(trialbus.SpecError, match=r"load_if_exists: false, .* has a study 'one'"):
        again.run_study(again.spec.studies[0])


def test_n_trials_is_a_total_over_runs_of_the_runner_and_its_workers(bus: Bus) -> None:
    for n_trials in (2, 4):
        running = runner(bus, study("one", n_trials=n_trials, n_jobs=2))
        [done] = running.run_all_studies()
        assert len(done.trials) == n_trials


def test_a_prune_raised_in_a_callback_ends_the_training_and_a_failed_study_leaves_the_next_be(
    bus: Bus,
) -> None:
    """A prune of the callback, and a study that cannot complete a trial."""
    running = runner(
        bus,
        study("pruned", episodes_per_trial=50, n_trials=1),
        study("second", episodes_per_trial=1, n_trials=1),
        trainer=runner_training.train_until_pruned,
        generate_plots=True,
        max_concurrent_trials=1,
    )
    with pytest.raises(trialbus.TrialbusError, match="study 'pruned' failed"):
        running.run_all_studies()
    storage = "sqlite:///optuna_studies.db"
    [trial] = optuna.load_study(study_name="pruned", storage=storage).trials
    assert trial.state is optuna.trial.TrialState.PRUNED
    assert len(trial.intermediate_values) == 2
    [trial] = optuna.load_study(study_name="second", storage=storage).trials
    assert trial.state is optuna.trial.TrialState.COMPLETE
    assert Path("sweep_results/second/report.html").exists()


def test_a_study_that_does_not_fit_the_storage_is_refused_with_the_reason(
    bus: Bus,
) -> None:
    storage = "sqlite:///optuna_studies.db"
    optuna.create_study(study_name="refused", storage=storage, direction="minimize")
    running = runner(bus, study("refused"), max_concurrent_trials=1)
    with pytest.raises(
        trialbus.TrialbusError, match=r"objective.direction: .* does not fit the study .refused."
    ):
        running.run_study(running.spec.studies[0])


def test_a_study_that_is_refused_before_it_is_stored_fails_with_the_optimizers_reason(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sampler can be imported here, and not by the optimizer."""
    folder = bus.directory / "elsewhere"
    folder.mkdir()
    (folder / "only_here.py").write_text("from optuna.samplers import RandomSampler as Mine")
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    sampler = {"type": "only_here.Mine"}
    running = runner(bus, study("refused", sampler=sampler), max_concurrent_trials=1)
    with pytest.raises(trialbus.TrialbusError, match=r"study .refused. failed: .*only_here"):
        running.run_study(running.spec.studies[0])
