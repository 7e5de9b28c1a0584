"""The examples run as a user starts the scripts, with and without a bus."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import trialbus
from support.commands import small_study
from support.mail_server import serve_mail
from support.processes import Bus
from support.stories import publish
from support.until import until

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_the_digits_trainer_runs_without_any_bus_and_prints_its_evaluations(tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TRIALBUS_")}
    done = subprocess.run(
        [sys.executable, EXAMPLES / "digits.py"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
    )
    lines = done.stderr.splitlines()
    assert "stand-alone" in lines[0]
    assert [line.split()[2] for line in lines if "val/accuracy" in line] == [
        str(i) for i in range(20)
    ]
    assert lines[-1] == "trialbus: complete"


def test_the_listener_prints_the_evaluations_of_a_running_study(bus: Bus) -> None:
    # Where it looks without being told: in the folder it is run from.
    bus.endpoint = f"ipc://{bus.directory}/.trialbus/hub.sock"
    listener = bus.run("listener", [sys.executable, str(EXAMPLES / "listen.py"), "quadratic"])
    study = bus.service("study", *small_study(n_trials=2, steps=3), "study.seed=1")
    assert study.wait(50) == 0, study.printed()
    # It may have connected after the first evaluations, and misses none from then on.
    until(lambda: "quadratic trial 1 step 2: loss" in listener.printed())
    listener.signal(signal.SIGINT)
    assert listener.wait(10) == 0


def test_trainings_that_ask_for_their_trials_themselves_finish_a_study(bus: Bus) -> None:
    bus.endpoint = f"ipc://{bus.directory}/.trialbus/hub.sock"
    study = bus.service(
        "study",
        "--config-dir",
        str(EXAMPLES / "conf"),
        "study=quadratic",
        "launcher=none",
        "pruner=none",
    )
    for _ in range(8):
        subprocess.run(
            [sys.executable, EXAMPLES / "free_standing.py"],
            cwd=bus.directory,
            capture_output=True,
            timeout=40,
            check=True,
        )
    assert study.wait(40) == 0, study.printed()
    assert "8 complete" in study.printed()


def test_trials_run_in_one_process(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLES / "in_process.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
    )
    assert done.stdout.startswith("best loss ")


@pytest.mark.timeout(120)
def test_an_objective_of_optuna_runs_on_a_bus_of_its_own(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLES / "optuna_objective.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=110,
        check=True,
    )
    assert done.stdout.splitlines()[-1].startswith("best accuracy 0.9")


def test_the_listener_of_reports_goes_on_where_it_was(bus: Bus) -> None:
    bus.endpoint = f"ipc://{bus.directory}/.trialbus/hub.sock"
    (bus.directory / ".trialbus").mkdir()
    bus.hub()

    def ready(study: str) -> trialbus.ReportReady:
        return trialbus.ReportReady(study=study, submission="1", paths=[f"/{study}.html"])

    publish(bus, ready("a"))
    listener = bus.run("listener", [sys.executable, str(EXAMPLES / "listen_reports.py")])
    until(lambda: "a /a.html" in listener.printed())
    listener.signal(signal.SIGINT)
    assert listener.wait(20) == 0
    publish(bus, ready("b"))
    listener.start()
    until(lambda: "b /b.html" in listener.printed())
    assert listener.printed().count("a /a.html") == 1


def test_the_notifier_of_one_s_own_sends_a_mail_from_the_root_of_the_checkout(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("USER", raising=False)
    (bus.directory / "examples").symlink_to(EXAMPLES)  # the folder looks like the checkout
    with serve_mail() as server:
        study = bus.service(
            "study",
            *small_study(n_trials=2, steps=1),
            *("--config-dir", "examples/conf", "notify=mail"),
            *("notify.mail.host=127.0.0.1", f"notify.mail.port={server.port}"),
            "notify.mail.to=me@localhost",
        )
        until(lambda: "." in server.lines, 60, "the mail")
        assert study.wait(60) == 0, study.printed()
    assert "Subject: quadratic: all trials done" in server.lines
    assert "To: me@localhost" in server.lines
