"""One process speaks for a trial: copies, children and the other ranks of a training do not."""

from __future__ import annotations

import copy
import logging
import multiprocessing
import os
import pickle
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import trialbus
from trialbus.client.handover import Handover
from trialbus.client.link import Link
from trialbus.testing import TestBus
from trialbus.trainer.assignment import make_environment
from trialbus.trainer.attachment import SPEAKER_VARIABLE
from trialbus.trainer.launchers import OUTER_RANKS_VARIABLE


@pytest.fixture
def bus() -> Iterator[TestBus]:
    with TestBus() as bus:
        yield bus


@pytest.fixture(autouse=True)
def environment(bus: TestBus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SPEAKER_VARIABLE, raising=False)
    bus.assign(monkeypatch.setenv, params={"x": 0.5})


def list_events(bus: TestBus) -> list[tuple[str, object]]:
    """Return what the log has about the trial, without its starts."""
    logged: list[tuple[str, object]] = []
    for event in (*bus.events(trialbus.EvaluationComplete), *bus.events(trialbus.TrialFinished)):
        if isinstance(event, trialbus.EvaluationComplete):
            logged.append(("step", event.step))
        else:
            logged.append(("end", event.state))
    return logged


def leave(_: trialbus.Trial) -> None:
    sys.exit(0)


def raise_error(_: trialbus.Trial) -> None:
    raise ZeroDivisionError


def report(trial: trialbus.Trial) -> None:
    trial.report(7, {"loss": 9.0})
    trial.complete(9.0)
    assert not trial.log_artifact(__file__)


def be_pruned(_: trialbus.Trial) -> None:
    raise trialbus.TrialPruned


def fork_and_wait(do: Callable[[], object]) -> int:
    """Run a function in a forked child and return the exit code of the child."""
    child = os.fork()
    if child == 0:
        try:
            do()
        except SystemExit as error:
            os._exit(10 + int(error.code or 0))
        except BaseException:  # noqa: BLE001 - the test's process must not go on twice
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
@pytest.mark.parametrize(
    ("act", "code"),
    [(leave, 10), (raise_error, 1), (report, 0), (be_pruned, 1)],
    ids=["leave", "raise", "report", "be-pruned"],
)
def test_a_forked_child_speaks_for_nobody(
    bus: TestBus, act: Callable[[trialbus.Trial], None], code: int
) -> None:
    with trialbus.attach() as trial:
        trial.report(0, {"loss": 1.0})

        def live() -> None:
            with trial:
                act(trial)

        assert fork_and_wait(live) == code
        trial.report(1, {"loss": 0.5})
    assert list_events(bus) == [("step", 0), ("step", 1), ("end", "complete")]


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
def test_a_process_of_a_pool_speaks_for_nobody_and_has_the_params(bus: TestBus) -> None:
    with trialbus.attach() as trial, multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply(use_copy, (trial,)) == 0.5
    assert list_events(bus) == [("end", "complete")]


def use_copy(trial: trialbus.Trial) -> float:
    with trial:
        report(trial)
    return float(trial.params["x"])


PICKLED = """
import pickle, sys
with pickle.load(sys.stdin.buffer) as trial:
    trial.report(7, {"loss": 9.0})
    print(trial.params["x"], trial.is_speaker)
    raise ValueError
"""


def test_a_pickled_trial_speaks_for_nobody_in_another_process(bus: TestBus) -> None:
    with trialbus.attach() as trial:
        ended = subprocess.run(
            [sys.executable, "-c", PICKLED],
            input=pickle.dumps(trial),
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert ended.stdout == b"0.5 False\n"
    assert list_events(bus) == [("end", "complete")]


def test_a_copy_within_the_process_is_the_trial_itself() -> None:
    with trialbus.attach() as trial:
        assert copy.deepcopy(trial) is trial
        assert copy.copy(trial) is trial
        assert pickle.loads(pickle.dumps([trial]))[0] is trial
        assert trial.is_speaker


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
def test_a_copy_whose_report_is_dropped_says_so_once(tmp_path: Path) -> None:
    def live() -> None:
        logging.basicConfig(filename=tmp_path / "log", force=True)
        trial.report(7, {"loss": 9.0})
        trial.report(8, {"loss": 9.0})

    with trialbus.attach() as trial:
        assert fork_and_wait(live) == 0
    text = (tmp_path / "log").read_text()
    assert text.count("this process has a copy of the trial of process") == 1


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
def test_a_forked_child_ends_at_once_by_a_signal(bus: TestBus) -> None:
    with trialbus.attach() as trial:
        child = os.fork()
        if child == 0:
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
        trial.report(0, {"loss": 1.0})
    assert list_events(bus) == [("step", 0), ("end", "complete")]


def test_another_rank_leaves_the_checkpoints_of_the_first_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIALBUS_CHECKPOINTS", str(tmp_path))
    with trialbus.attach() as trial:
        with trial.checkpoint.save(0) as path:
            path.write_text("weights")
        monkeypatch.setenv("RANK", "1")
        monkeypatch.setenv("WORLD_SIZE", "2")
        printed = run_child("latest")
        assert "checkpoint 0" in printed
        assert trial.checkpoint.latest() is not None


CHILD = """
import sys, trialbus
with trialbus.attach() as trial:
    print(trial.params["x"], trial.rank, trial.is_speaker, flush=True)
    trial.report(5, {"loss": 9.0})
    if sys.argv[1:] == ["latest"]:
        print("checkpoint", trial.checkpoint.latest().step)
    if sys.argv[1:] == ["raise"]:
        raise ValueError
"""


def run_child(*arguments: str, **variables: str) -> str:
    """Run a program that attaches, and return what it prints."""
    ended = subprocess.run(
        [sys.executable, "-c", CHILD, *arguments],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return ended.stdout + ended.stderr


def test_a_program_that_the_training_starts_listens(bus: TestBus) -> None:
    with trialbus.attach() as trial:
        printed = run_child("raise")
        assert "0.5 0 False" in printed
        assert f"process {os.getpid()} on " in printed
        assert "what this process reports is dropped" in printed
        trial.report(0, {"loss": 1.0})
    assert list_events(bus) == [("step", 0), ("end", "complete")]


RANKS = {
    "torchrun": {"RANK": "1", "LOCAL_RANK": "0", "WORLD_SIZE": "2"},
    "Lightning": {"LOCAL_RANK": "1", "NODE_RANK": "0", "WORLD_SIZE": "2"},
    "Lightning's second node": {"NODE_RANK": "1", "WORLD_SIZE": "2"},
    "Open MPI": {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2"},
    "MPICH": {"PMI_RANK": "1", "PMI_SIZE": "2"},
    "MVAPICH": {"MV2_COMM_WORLD_RANK": "1", "MV2_COMM_WORLD_SIZE": "2"},
    "Horovod": {"HOROVOD_RANK": "1", "HOROVOD_SIZE": "2"},
    "jsrun": {"JSM_NAMESPACE_RANK": "1", "JSM_NAMESPACE_SIZE": "2"},
    "Flux": {"FLUX_TASK_RANK": "1", "FLUX_JOB_SIZE": "2"},
    "Slurm": {"SLURM_PROCID": "1", "SLURM_NTASKS": "2"},
}


@pytest.mark.parametrize("variables", RANKS.values(), ids=RANKS.keys())
def test_a_rank_but_the_first_of_any_launcher_listens(
    bus: TestBus, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with trialbus.attach() as trial:
        assert (trial.rank, trial.is_speaker) == (1, False)
        assert trial.params == {"x": 0.5}
        trial.report(3, {"loss": 9.0})
    for name, value in variables.items():
        monkeypatch.setenv(name, "0" if value == "1" else value)
    with trialbus.attach() as trial:
        assert (trial.rank, trial.is_speaker) == (0, True)
        trial.report(0, {"loss": 1.0})
    assert list_events(bus) == [("step", 0), ("end", "complete")]


def test_a_listening_rank_receives_a_prune(bus: TestBus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "1")
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    with trialbus.attach() as trial:
        trial.report(0, {"loss": 1.0}, wait=0.1)
        bus.publish(trialbus.Prune(study="test", trial=0, attempt=0, step=0))
        with pytest.raises(trialbus.TrialPruned):
            trial.report(1, {"loss": 1.0}, wait=20)
    assert list_events(bus) == []


def test_the_tasks_of_a_batch_system_that_are_workers_each_speak_for_their_trials(
    bus: TestBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_PROCID", "3")
    monkeypatch.setenv("SLURM_NTASKS", "4")
    monkeypatch.setenv("SLURM_STEP_ID", "0")
    bus.assign(monkeypatch.setenv, params={"x": 0.5})  # as the worker of that task does
    assert '"SLURM_PROCID": "3"' in os.environ[OUTER_RANKS_VARIABLE]
    with trialbus.attach() as trial:
        assert (trial.rank, trial.is_speaker) == (0, True)
    monkeypatch.setenv("SLURM_STEP_ID", "1")  # the training starts ranks by itself
    with trialbus.attach() as trial:
        assert (trial.rank, trial.is_speaker) == (3, False)


@pytest.mark.parametrize(
    "variables", [RANKS["torchrun"], RANKS["Lightning"]], ids=["torchrun", "Lightning"]
)
def test_ranks_without_a_worker_need_a_process_group(
    bus: TestBus, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    monkeypatch.delenv("TRIALBUS_TRIAL")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    for study in (None, "s"):
        with pytest.raises(trialbus.TrialbusError, match=r"init_process_group\(\) before"):
            trialbus.attach(study, endpoint=bus.endpoint)


LIGHTNING_LIKE = """
import os, subprocess, sys, trialbus
import torch.distributed as dist
trial = trialbus.attach()  # as a script does before Trainer.fit
rank = int(os.environ.get("LOCAL_RANK", 0))
os.environ |= {"LOCAL_RANK": str(rank), "NODE_RANK": "0", "WORLD_SIZE": "2"}
if rank == 0:
    environment = {**os.environ, "LOCAL_RANK": "1"}
    other = subprocess.Popen([sys.executable, __file__, *sys.argv[1:]], env=environment)
dist.init_process_group("gloo", init_method=f"file://{sys.argv[1]}", rank=rank, world_size=2)
steps = 0
with trial:
    for step in range(1000):
        steps = step
        trial.report(step, {"loss": float(step)}, wait=20 if step == 3 else 0)
        dist.barrier()
sys.stdout.write(f"{trial.rank} speaks {trial.is_speaker} left at {steps}\\n")
sys.stdout.flush()
dist.destroy_process_group()
if rank == 0:
    sys.exit(other.wait(30))
"""


def test_a_group_that_the_launched_ranks_make_after_they_attached_shares_a_prune(
    bus: TestBus, tmp_path: Path
) -> None:
    script = tmp_path / "train.py"
    script.write_text(LIGHTNING_LIKE)
    with trialbus.subscribe(trialbus.EvaluationComplete, endpoint=bus.endpoint) as reports:
        reports.wait_ready()
        process = subprocess.Popen(
            [sys.executable, str(script), str(tmp_path / "meeting")],
            stdout=subprocess.PIPE,
            text=True,
        )
        while True:
            event = reports.next(60)
            assert event is not None
            if event.step == 3:
                break
        bus.publish(trialbus.Prune(study="test", trial=0, attempt=0, step=3))
        printed, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    # Both ranks and libraries print into one pipe.
    ends = re.findall(r"(\d) speaks (True|False) left at (\d+)", printed)
    assert sorted(ends) == [("0", "True", "3"), ("1", "False", "3")]
    assert list_events(bus) == [*(("step", step) for step in range(4)), ("end", "pruned")]


SIBLINGS = """
import multiprocessing, trialbus

def run(barrier):
    with trialbus.attach() as trial:
        barrier.wait(30)
        trial.report(0, {"loss": 1.0})
        print(trial.is_speaker, flush=True)
        barrier.wait(30)

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(2)
    ranks = [context.Process(target=run, args=(barrier,)) for _ in range(2)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join()
"""


@pytest.fixture
def attempt(bus: TestBus, monkeypatch: pytest.MonkeyPatch) -> Iterator[Handover]:
    """The environment of an attempt that a worker on this host has started."""
    assigned = trialbus.TrialAssigned(
        study="test", trial=0, request="0123abcd", session="test", params={"x": 0.5}
    )
    for name, value in make_environment(assigned, bus.endpoint).items():
        monkeypatch.setenv(name, value)
    with Link(bus.endpoint) as link:
        handover = Handover(link, assigned.request)
        for name, value in handover.environment.items():
            monkeypatch.setenv(name, value)
        yield handover
        handover.close()


def run_script(tmp_path: Path, text: str, *arguments: str) -> str:
    """Run a script that multiprocessing can import again, and return what the script prints."""
    script = tmp_path / "train.py"
    script.write_text(text)
    ended = subprocess.run(
        [sys.executable, str(script), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=100,
        check=False,
    )
    return ended.stdout


@pytest.mark.usefixtures("attempt")
def test_one_of_the_processes_that_a_training_spawns_speaks_for_the_trial(
    bus: TestBus, tmp_path: Path
) -> None:
    printed = run_script(tmp_path, SIBLINGS)
    assert sorted(re.findall("True|False", printed)) == ["False", "True"], printed
    assert "has attached to this trial and speaks for it" in printed
    assert list_events(bus) == [("step", 0), ("end", "complete")]


@pytest.mark.usefixtures("attempt")
def test_a_process_that_is_started_after_the_speaker_has_gone_speaks(bus: TestBus) -> None:
    assert "0.5 0 True" in run_child()
    assert "0.5 0 True" in run_child()
    assert ("step", 5) in list_events(bus)


SPAWNED_RANKS = """
import sys
import torch.distributed as dist
import torch.multiprocessing as mp
import trialbus

def run(rank, path, trial, is_late):
    def meet():
        dist.init_process_group("gloo", init_method=f"file://{path}", rank=rank, world_size=2)
    if not is_late:
        meet()
    with trial or trialbus.attach() as trial:
        if is_late:
            meet()
        for step in range(3):
            trial.report(step, {"loss": float(step + 10 * rank)})
        dist.barrier()
    dist.destroy_process_group()

if __name__ == "__main__":
    way, path = sys.argv[1:]
    if way in ("pickled", "above"):
        with trialbus.attach() as trial:
            mp.spawn(run, args=(path, trial if way == "pickled" else None, False), nprocs=2)
    else:
        mp.spawn(run, args=(path, None, way == "late"), nprocs=2)
"""


@pytest.mark.timeout(120)
@pytest.mark.usefixtures("attempt")
@pytest.mark.parametrize(
    ("way", "message"),
    [
        ("in the ranks", ""),
        ("late", r"call torch.distributed.init_process_group\(\) before trialbus.attach\(\)"),
        ("pickled", r"became rank . of 2 after trialbus.attach\(\)"),
        ("above", r"this is rank 0, but process \d+ on .* has attached to this trial"),
    ],
    ids=["in the ranks", "before the group", "pickled", "above the ranks"],
)
def test_of_ranks_that_torch_spawns_rank_0_speaks_or_an_error_says_where_to_attach(
    bus: TestBus, tmp_path: Path, way: str, message: str
) -> None:
    printed = run_script(tmp_path, SPAWNED_RANKS, way, str(tmp_path / "meeting"))
    ends = [event.state for event in bus.events(trialbus.TrialFinished)]
    if message:
        assert re.search(message, printed)
        assert ends in ([], ["failed"]), printed
    else:
        losses = [event.metrics["loss"] for event in bus.events(trialbus.EvaluationComplete)]
        assert (losses, ends) == ([0.0, 1.0, 2.0], ["complete"]), printed
