"""`trialbus watch` as a process, beside the events of a study on a real hub."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import trialbus
from support.commands import small_study
from support.endpoint import serve_endpoint
from support.processes import Bus, Managed
from support.stories import make_study_end, make_study_start, make_trial, publish
from support.until import until
from trialbus.client.presence import Presence

pytestmark = pytest.mark.timeout(120)


def watch(bus: Bus, *arguments: str, name: str = "watch") -> Managed:
    command = [sys.executable, "-m", "trialbus_services", "watch", "--endpoint", bus.endpoint]
    return bus.run(name, [*command, *arguments])


def ready(study: str = "quadratic", path: str = "/reports/report.html") -> trialbus.ReportReady:
    return trialbus.ReportReady(study=study, submission="1", paths=[path])


def until_printed(process: Managed, words: str) -> None:
    until(lambda: words in process.printed(), 40, f"{words!r}, in {process.printed()!r}")


def test_one_that_comes_late_sees_the_whole_study_and_its_end(bus: Bus) -> None:
    bus.hub()
    publish(bus, *make_study_start(), *make_trial(0), *make_trial(1), *list(make_trial(2))[:2])
    late = watch(bus)
    until_printed(late, "quadratic: 2/8 trials done, 1 running, best 0.25 in trial 1")
    assert "trial 0 complete" not in late.printed(), "news of long ago"
    publish(bus, list(make_trial(2))[-1], ready(), make_study_end())
    assert late.wait(40) == 0
    for words in (
        "trial 2 complete",
        "quadratic, all trials done",
        "loss 0.125 (minimized) in trial 4",
        "5 complete, 2 pruned, 1 failed",
        "report  /reports/report.html",
    ):
        assert words in late.printed()


@pytest.mark.parametrize(("reason", "code"), [("failed", 1), ("stopped", 0)])
def test_a_study_that_has_ended_is_summed_up_at_once(bus: Bus, reason: str, code: int) -> None:
    bus.hub()
    told = make_study_end(reason=reason, error="no luck")  # type: ignore[arg-type]
    publish(bus, *make_study_start(), *make_trial(0), told, ready())
    done = watch(bus, "quadratic")
    assert done.wait(40) == code
    assert f"quadratic, {reason}" in done.printed()
    assert "no luck" in done.printed()
    assert "Ctrl-C" not in done.printed()


def test_a_study_that_was_submitted_again_is_watched_to_its_new_end(bus: Bus) -> None:
    bus.hub()
    publish(
        bus,
        *make_study_start(),
        *make_trial(0),
        make_study_end(),
        ready(),
        *make_study_start(submission="2", n_done=8),
    )
    again = watch(bus)
    until_printed(again, "8/8 trials done, 0 running, best 0.125 in trial 4")
    publish(bus, make_study_end(submission="2"))
    assert again.wait(40) == 0
    assert "report " not in again.printed(), "that of the first run"


def test_ctrl_c_detaches_and_says_how_to_come_back(bus: Bus) -> None:
    bus.hub()
    publish(bus, *make_study_start(), *make_trial(0))
    shown = watch(bus)
    until_printed(shown, "1/8 trials done")
    shown.signal(signal.SIGINT)
    assert shown.wait(20) == 130
    assert "detached; the study continues, and trialbus watch quadratic" in shown.printed()
    assert "Traceback" not in shown.printed()


def test_it_outlives_the_hub(bus: Bus) -> None:
    hub = bus.hub()
    publish(bus, *make_study_start(), *make_trial(0))
    shown = watch(bus)
    until_printed(shown, "1/8 trials done")
    hub.kill()
    until_printed(shown, "the hub does not answer; waiting for it")
    hub.start()
    publish(bus, *make_trial(1))
    until_printed(shown, "trial 1 complete")
    publish(bus, make_study_end(), ready())
    assert shown.wait(40) == 0


def test_a_missing_optimizer_is_told_after_a_while_and_when_there_is_one_again(bus: Bus) -> None:
    bus.hub()
    publish(bus, *make_study_start(), *make_trial(0))
    shown = watch(bus)
    until_printed(shown, "no optimizer runs: the study waits")
    with Presence(endpoint=bus.endpoint, kind="optimizer"):
        until_printed(shown, "an optimizer runs again")
    assert shown.printed().count("no optimizer runs") == 1
    publish(bus, make_study_end(), ready())
    assert shown.wait(40) == 0


def test_without_a_name_and_with_a_choice_it_prints_what_to_type(bus: Bus) -> None:
    bus.hub()
    publish(
        bus,
        *make_study_start("a b"),
        *make_study_start("c"),
        *make_study_start("old"),
        make_study_end("old"),
    )
    choice = watch(bus)
    assert choice.wait(40) == 2
    lines = choice.printed().splitlines()
    assert [line.split("  ")[1] for line in lines[1:]] == [
        "trialbus watch 'a b'",
        "trialbus watch c",
    ]
    wrong = watch(bus, "odl", name="wrong")
    assert wrong.wait(40) == 2
    assert "no study 'odl' was submitted on this bus; did you mean 'old'?" in wrong.printed()


def test_a_watcher_without_a_hub_waits_for_a_hub_and_for_a_study(bus: Bus) -> None:
    early = watch(bus)
    until_printed(early, f"no hub answers at {bus.endpoint}; waiting for one")
    bus.hub()
    until_printed(early, f"no study on {bus.endpoint} yet; waiting for one")
    publish(bus, *make_study_start(), *make_trial(0))
    until_printed(early, "1/8 trials done")
    publish(bus, make_study_end(), ready())
    assert early.wait(40) == 0


def test_ctrl_c_ends_a_watcher_that_waits_for_a_hub(bus: Bus) -> None:
    early = watch(bus)
    until_printed(early, "no hub answers")
    early.signal(signal.SIGINT)
    assert early.wait(20) == 130
    assert "Traceback" not in early.printed()


def test_in_a_terminal_there_is_a_live_area_that_is_gone_after_ctrl_c(bus: Bus) -> None:
    bus.hub()
    publish(bus, *make_study_start(), *make_trial(0), *list(make_trial(1))[:3])
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "trialbus_services", "watch", "--endpoint", bus.endpoint]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "30"}
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, close_fds=True
    )
    os.close(theirs)
    shown = b""
    try:
        while b"1 running" not in shown or b"events/s" not in shown or "█".encode() not in shown:
            shown += os.read(ours, 65536)
        process.send_signal(signal.SIGINT)
        while b"detached" not in shown:
            shown += os.read(ours, 65536)
        assert process.wait(20) == 130
        assert b"\x1b[?25h" in shown, "the cursor is back"
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_a_launcher_tells_its_notifier_before_it_ends_its_hub(bus: Bus) -> None:
    with serve_endpoint(500) as there:
        study = bus.service(
            "study",
            *small_study(n_trials=2, steps=1),
            "notify=webhook",
            f"notify.webhook.url={there.url}",
        )
        assert study.wait(90) == 0, study.printed()
        (told,) = there.seen
    assert told["title"] == "quadratic: all trials done"
    assert Path(told["paths"][0]).is_file()
    assert told["counts"]["complete"] == 2


def test_a_notifier_that_cannot_be_made_stops_a_study_before_it_starts(bus: Bus) -> None:
    study = bus.service("study", *small_study(), "notify=webhook", "notify.webhook.url=nowhere")
    assert study.wait(40) == 2
    assert "notify.webhook: trialbus_services.notify.Webhook: ValueError: url" in study.printed()
    assert not (bus.directory / "log").exists()
