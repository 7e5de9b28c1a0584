"""The trainer's handle in studies: synchronous decisions, preemption, checkpoints, artifacts."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import optuna
import pytest
from optuna.artifacts import FileSystemArtifactStore, download_artifact, get_all_artifact_meta
from optuna.trial import TrialState

import trialbus
from support.client import SPEC, Client, load_study, start_optimizer
from support.processes import Bus
from support.until import until

MEDIAN = trialbus.Component(type="MedianPruner", args={"n_startup_trials": 3})
SYNCHRONOUS = msgspec.structs.replace(
    SPEC,
    pruner=MEDIAN,
    sampler=trialbus.Component(type="TPESampler", args={"n_startup_trials": 4}),
    n_trials=15,
    seed=5,
)


def loss(x: float, step: int) -> float:
    """Return a value that falls with the steps, in some trials too slowly."""
    return x * x + 3 / (step + 1) * abs(x)


def test_with_wait_the_decisions_are_equal_to_plain_optuna_s_at_every_step(
    bus: Bus, client: Callable[[], Client]
) -> None:
    bus.hub()
    start_optimizer(bus, "optimizer.ahead=0")
    client().submit(SYNCHRONOUS)
    ours: list[tuple[float, int]] = []
    for _ in range(SYNCHRONOUS.n_trials):
        trial = trialbus.attach(study=SPEC.name, endpoint=bus.endpoint, timeout_s=30)
        x, step = trial.params["x"], 0
        with trial:
            for step in range(6):
                trial.report(step, {"loss": loss(x, step)}, wait=30)
        ours.append((x, step))
    plain = optuna.create_study(
        sampler=optuna.samplers.TPESampler(n_startup_trials=4, seed=5),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=3),
    )
    theirs: list[tuple[float, int]] = []
    for _ in range(SYNCHRONOUS.n_trials):
        asked = plain.ask()
        x = asked.suggest_float("x", -3, 3)
        asked.suggest_categorical("kind", ["a", "b"])
        step, pruned = -1, False
        while step < 5 and not pruned:
            step += 1
            asked.report(loss(x, step), step)
            pruned = asked.should_prune()
        if pruned:
            plain.tell(asked, state=TrialState.PRUNED)
        else:
            plain.tell(asked, loss(x, step))
        theirs.append((x, step))
    assert ours == theirs
    assert any(step < 5 for _, step in ours)


TRAINING = """
import sys, time, trialbus
with trialbus.attach(study="quadratic", endpoint=sys.argv[1], timeout_s=60) as trial:
    checkpoint = trial.checkpoint.latest()
    first_step = checkpoint.step + 1 if checkpoint else 0
    print("attempt", trial.attempt, "begins at", first_step, flush=True)
    for step in range(first_step, 4):
        trial.report(step, {"loss": 4 - step})
        with trial.checkpoint.save(step) as path:
            path.write_text("weights")
        if step == 1 and trial.attempt == 0:
            print("waits", flush=True)
            time.sleep(600)
"""


@pytest.mark.parametrize(
    "handler",
    [
        pytest.param("", id="without-a-handler"),
        pytest.param(
            "import signal; signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))", id="that-exits"
        ),
    ],
)
def test_a_preempted_training_resumes_from_its_checkpoint(
    bus: Bus, client: Callable[[], Client], tmp_path: Path, handler: str
) -> None:
    bus.hub()
    start_optimizer(bus)
    listener = client()
    listener.submit(msgspec.structs.replace(SPEC, n_trials=1, max_failures=1))
    script = tmp_path / "training.py"
    script.write_text(TRAINING.replace("trialbus\nwith", f"trialbus\n{handler}\nwith"))
    command = [sys.executable, str(script), bus.endpoint]
    first = bus.run("first", command)
    until(lambda: "waits" in first.printed(), 30)
    first.signal(signal.SIGTERM)
    assert first.wait(20) != 0
    finished = listener.next(trialbus.TrialFinished)
    assert (finished.state, finished.error) == ("preempted", "ended by SIGTERM")
    second = bus.run("second", command)
    assert second.wait(30) == 0
    assert "attempt 1 begins at 2" in second.printed()
    assert listener.next(trialbus.StudyFinished).counts.complete == 1
    assert load_study(bus).trials[0].intermediate_values == {0: 4, 1: 3, 2: 2, 3: 1}


def test_optuna_s_artifact_store_reads_an_artifact_of_a_trial(
    bus: Bus, client: Callable[[], Client], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIALBUS_ARTIFACTS", str(tmp_path / "artifacts"))
    bus.hub()
    start_optimizer(bus)
    listener = client()
    listener.submit(msgspec.structs.replace(SPEC, n_trials=1))
    picture = tmp_path / "curve.png"
    picture.write_bytes(b"not really a picture")
    trial = trialbus.attach(study=SPEC.name, endpoint=bus.endpoint, timeout_s=30)
    trial.report(0, {"loss": 1})
    with pytest.raises(FileNotFoundError):
        trial.log_artifact(tmp_path / "nothing.png")
    kept = trial.log_artifact(picture)
    with trial:
        pass
    listener.next(trialbus.StudyFinished)
    study = load_study(bus)
    (meta,) = get_all_artifact_meta(study.trials[0], storage=study._storage)  # pyright: ignore[reportPrivateUsage]
    assert (meta.artifact_id, meta.filename, meta.mimetype) == (kept, "curve.png", "image/png")
    store = FileSystemArtifactStore(tmp_path / "artifacts")
    download_artifact(artifact_store=store, artifact_id=kept, file_path=str(tmp_path / "copy"))
    assert (tmp_path / "copy").read_bytes() == picture.read_bytes()
