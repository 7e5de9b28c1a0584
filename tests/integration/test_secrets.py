"""Secrets of a config: no file, log, report, terminal or command line has them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import optuna
import pytest

from support.commands import small_study
from support.endpoint import serve_endpoint
from support.processes import Bus
from support.until import until
from trialbus.client.ring_directory import locate_ring_directory

CANARY = "c4n4ry"
SECRETS = [
    f"storage.url='sqlite:///file:optuna_studies.db?uri=true&password={CANARY}-database'",
    f"+trainer.env.WANDB_API_KEY={CANARY}-variable",
    "notify=[slack,webhook]",
    f"+notify.webhook.headers={{Authorization: {CANARY}-header}}",
    f"monitor.token={CANARY}-monitor-token",
]


def find_canaries(folder: Path) -> list[str]:
    """Return the files below a folder that contain a canary."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    return [str(path) for path in files if CANARY.encode() in path.read_bytes()]


def find_command_lines() -> dict[int, str]:
    """Return the command lines of processes that contain a canary, by process id."""
    lines: dict[int, str] = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # the process has ended
            continue
        if CANARY in text:
            lines[int(path.parent.name)] = text
    return lines


def test_a_study_leaves_its_secrets_in_no_file_log_report_terminal_or_command_line(
    bus: Bus,
) -> None:
    with serve_endpoint() as server:
        hook = server.url.replace("secret", f"{CANARY}-hook")
        study = bus.service(
            "study",
            *small_study(n_trials=4),
            *SECRETS,
            f"notify.slack.url={hook}",
            f"notify.webhook.url={hook}",
            "log_level=DEBUG",
        )
        until((bus.directory / "log" / "logs" / "reporter.log").exists, 30, "the last service")
        # Typed by the user; a process that is just being forked has the same one for a moment.
        until(lambda: set(find_command_lines()) <= {study.pid}, 10, "command lines without secrets")
        assert study.wait(90) == 0, study.printed()
        assert len(server.seen) == 2
    assert find_canaries(bus.directory) == []
    assert not locate_ring_directory(bus.endpoint).exists() or not find_canaries(
        locate_ring_directory(bus.endpoint)
    )
    reports = list(bus.directory.rglob("study.json"))
    assert "WANDB_API_KEY" in reports[0].read_text()  # the name is there, and the value is not


@pytest.mark.parametrize(
    "wrong",
    [
        [f"storage.url=postgresql://me:{CANARY}@h:port/d"],
        [f"storage.url=nonsense://me:{CANARY}@h/d"],
        [f"storage.url=postgresql://me:{CANARY}'x@h/d"],
        [f"storage.url=postgresql://me:p@ss{CANARY}@h/d", "study.n_trials=-1"],
        [f"notify.slack.url={CANARY}", "notify=slack"],
        [f"+notify.mine={CANARY}"],
        [f"monitor.token={CANARY}"],
        [f"+trainer.env.MY_KEY={CANARY}", "trainer.nonsense=1"],
        [f"+trainer.env={{MY_KEY: {CANARY}}}", "+trainer.env.A=[1]"],
        [f"+notify={{slack: {{url: https://h/{CANARY}}}}}"],
    ],
)
def test_an_error_shows_the_key_and_no_secret(wrong: list[str], tmp_path: Path) -> None:
    done = run("study", "--dry-run", *small_study(), *wrong, cwd=tmp_path)
    assert done.returncode == 2, done
    assert "error: " in done.stderr
    assert CANARY not in done.stdout + done.stderr


@pytest.mark.parametrize(
    "options",
    [
        ["--cfg=job"],
        ["--cfg=all"],
        ["--cfg=job", "--resolve"],
        ["--cfg=job", "--package=notify.slack"],
        ["--cfg=hydra"],
        ["--help", "-v"],
        ["--dry-run", "-v"],
    ],
)
def test_what_shows_the_config_shows_no_secret(options: list[str], tmp_path: Path) -> None:
    hook = f"notify.slack.url=https://example.org/{CANARY}-hook"
    slack = ["notify=slack", hook]
    secrets = [secret for secret in SECRETS if not secret.startswith(("notify", "+notify"))]
    done = run("study", *options, *small_study(), *secrets, *slack, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert CANARY not in done.stdout + done.stderr
    assert "***" in done.stdout


def test_the_shown_config_is_hydras_own_where_there_is_no_secret(tmp_path: Path) -> None:
    shown = run("study", "--cfg=job", "storage=postgresql", "notify=slack", cwd=tmp_path).stdout
    assert "url: postgresql+psycopg://${oc.env:USER}@localhost/optuna" in shown
    assert "url: ${oc.env:SLACK_WEBHOOK_URL}" in shown
    assert "***" not in shown


def test_a_multirun_leaves_no_secret_in_its_folder(bus: Bus) -> None:
    study = bus.service(
        "study",
        "--multirun",
        *small_study(steps=1, step_s=0.0, n_trials=1),
        *(secret for secret in SECRETS if "notify" not in secret),
        f"hydra.sweep.dir={bus.directory}/sweep",
    )
    assert study.wait(60) == 0, study.printed()
    assert "storage.url=" in (bus.directory / "sweep" / "multirun.yaml").read_text()
    assert find_canaries(bus.directory) == []


def test_the_dashboard_gets_the_storage_without_a_secret_in_its_command_line(bus: Bus) -> None:
    url = f"sqlite:///file:{bus.directory}/o.db?uri=true&password={CANARY}"
    optuna.create_study(study_name="mine", storage=url)
    dashboard = bus.service("dashboard", f"storage.url='{url}'", "dashboard.port=0")
    until(lambda: "Listening" in dashboard.printed(), 40, "the dashboard")
    assert set(find_command_lines()) <= {dashboard.pid}
    assert CANARY not in dashboard.printed()
    assert dashboard.stop() == 0


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "trialbus_services", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
