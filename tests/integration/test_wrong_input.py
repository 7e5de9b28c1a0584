"""Wrong input ends in a clear message and an exit code, and services continue."""

from __future__ import annotations

import sys

import pytest

from support.commands import small_study
from support.processes import Bus


def run_to_end(
    bus: Bus, *arguments: str, name: str = "study", timeout_s: float = 60
) -> tuple[int, str]:
    """Run a command to the end and return exit code and output."""
    process = bus.service(name, *arguments)
    return process.wait(timeout_s), process.printed()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["study=nosuch"], "study: there is no 'nosuch' (expected one of digits, ppo_cartpole)"),
        (
            ["study.params.lr.low=0.5", "study.params.lr.high=0.1"],
            "study.params.lr.low: 0.5 is above high 0.1 (expected low <= high)",
        ),
        (
            ["study.n_trials=many"],
            "study.n_trials: 'many' cannot be used (expected a whole number)",
        ),
        (["+study.n_trial=3"], "study.n_trial: no such key"),
        (["+sampler.n_startup_trails=3"], "did you mean 'n_startup_trials'"),
        (
            ["pruner.type=MedianPrunr"],
            "pruner.type: 'MedianPrunr' is not a pruner of Optuna; did you",
        ),
        (
            ["study.objective.aggregate=lats"],
            "study.objective.aggregate: 'lats' is not one of last,",
        ),
        (
            ["trainer.command=[no-such-program]"],
            "trainer.command: 'no-such-program' is not a program that can be run here",
        ),
        (["trainer.command=[python,no-such.py]"], "trainer.command: there is no file 'no-such.py'"),
        (["trainer=command"], "trainer.command: has no value yet"),
        (["bus.endpoint=udp://x"], "bus.endpoint: 'udp://x' is not ipc://<path> or tcp://<host>"),
        (["storage.url=oracel:///x"], "storage.url: 'oracel:///x' cannot be opened"),
        (
            ["storage.url=sqlite:////proc/version"],
            "storage.url: 'sqlite:////proc/version' is not a",
        ),
        (["bus.dir=/proc/nope"], "bus.dir: '/proc/nope': No such file or directory in '/proc'"),
        (["report.dir=/proc/nope"], "report.dir: '/proc/nope': No such file or directory"),
        (["dashboard.port=99999"], "dashboard.port: 99999 is not a port (expected 0 to 65535)"),
    ],
    ids=str,
)
def test_a_wrong_config_stops_before_anything_is_started(
    bus: Bus, overrides: list[str], message: str
) -> None:
    code, printed = run_to_end(bus, *overrides)
    assert code != 0
    assert message in printed
    assert "Traceback" not in printed
    assert not (bus.directory / "log").exists(), "something was started"


def test_a_metric_that_is_never_reported_is_named_with_what_was(bus: Bus) -> None:
    code, printed = run_to_end(bus, *small_study(steps=1, step_s=0.0, ending="silent"))
    assert code == 1
    assert "study.objective.metric 'loss' was never reported" in printed
    assert "the trainer reported: other" in printed


def test_a_trainer_that_exits_with_1_ends_the_study_with_its_last_words(bus: Bus) -> None:
    code, printed = run_to_end(bus, *small_study(ending="exit1"))
    assert code == 1
    assert "trials in a row failed (study.max_failures=5)" in printed
    assert "the training data is missing" in printed
    assert "the trainer exited with code 1" in printed


def test_a_trainer_that_goes_missing_is_named_by_its_key(bus: Bus) -> None:
    """The launcher may find a program that the worker does not find."""
    bus.service("hub")
    bus.service("optimizer")
    bus.service("reporter")
    (bus.directory / "train.sh").write_text("#!/no/such/shell\n")
    (bus.directory / "train.sh").chmod(0o755)
    code, printed = run_to_end(bus, *small_study(), f"trainer.command=[{bus.directory}/train.sh]")
    assert code == 1
    assert "trainer.command: there is no" in printed


@pytest.mark.parametrize("name", ["optimizer", "worker", "reporter"])
def test_a_service_without_a_hub_says_what_to_start(bus: Bus, name: str) -> None:
    code, printed = run_to_end(bus, "bus.connect_s=0.5", name=name)
    assert code == 1
    assert f"no hub answered at bus.endpoint='{bus.endpoint}' within 0.5 s" in printed
    assert "trialbus hub" in printed


def test_a_service_that_finds_no_hub_names_the_variable_that_has_its_address(bus: Bus) -> None:
    address = "TRIALBUS_ENDPOINT=tcp://127.0.0.1:5999"
    command = ["env", address, sys.executable, "-m", "trialbus_services", "worker"]
    process = bus.run("worker", [*command, "bus.connect_s=0.5", *small_study()])
    assert process.wait(30) == 1
    assert "no hub answered at $TRIALBUS_ENDPOINT='tcp://127.0.0.1:5999'" in process.printed()
    assert "a hub with keys does not answer a client without" in process.printed()


def test_services_that_met_a_failing_study_serve_the_next_one(bus: Bus) -> None:
    for name in ("hub", "optimizer", "reporter"):
        bus.service(name)
    failing, _ = run_to_end(bus, *small_study(ending="exit1", name="failing"))
    assert failing == 1
    code, printed = run_to_end(bus, *small_study(steps=1, step_s=0.0, n_trials=2))
    assert code == 0, printed
    assert "2 complete, 0 pruned, 0 failed" in printed
    assert all(bus.processes[name].running for name in ("hub", "optimizer", "reporter"))


def test_a_running_optimizer_that_records_elsewhere_is_pointed_out(bus: Bus) -> None:
    bus.service("hub")
    bus.service("optimizer", "storage.url=sqlite:///elsewhere.db")
    bus.service("reporter")
    # Wait until the optimizer runs: a study cannot end before.
    code_of_first, _ = run_to_end(
        bus, *small_study(steps=1, step_s=0.0, n_trials=1), "storage.url=sqlite:///elsewhere.db"
    )
    assert code_of_first == 0
    code, printed = run_to_end(bus, *small_study())
    assert code == 2
    assert (
        "storage.url: 'sqlite:///optuna_studies.db' is not the storage of the running optimizer"
        in printed
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "usage: trialbus COMMAND"),
        (["studdy"], "there is no command 'studdy'; did you mean 'study'?"),
    ],
)
def test_a_wrong_command_is_answered_with_the_right_one(
    bus: Bus, arguments: list[str], message: str
) -> None:
    process = bus.run("wrong", [sys.executable, "-m", "trialbus_services", *arguments])
    assert process.wait(30) == 2
    assert message in process.printed()
