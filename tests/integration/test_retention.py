"""Events of finished studies leave the log while the hub serves everybody else."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest

import trialbus
from support.processes import Bus
from support.until import until
from trialbus.client.admin import forget_name, forget_study, hub_status
from trialbus.client.link import Link
from trialbus.errors import HubRefusedError
from trialbus.messages import events

SPEC = trialbus.load_spec(
    {
        "name": "s",
        "n_trials": 1,
        "params": {"x": {"type": "float", "low": 0, "high": 1}},
        "objective": {"metric": "loss"},
    },
    sampler={"type": "RandomSampler"},
    pruner=None,
)


def run_study(publisher: trialbus.Publisher, name: str, steps: int, *, ends: bool = True) -> None:
    publisher.publish(events.StudySubmitted(study=name, spec=SPEC, submission=name))
    publisher.publish(
        events.TrialAssigned(study=name, trial=0, request=f"of {name}", session="", params={})
    )
    for step in range(steps):
        publisher.publish(
            trialbus.EvaluationComplete(study=name, trial=0, step=step, metrics={"loss": 0.5})
        )
    if ends:
        publisher.publish(events.StudyFinished(study=name, submission=name, reason="exhausted"))


def counts(bus: Bus) -> dict[str, int]:
    found: dict[str, int] = {}
    for record in trialbus.replay(endpoint=bus.endpoint):
        study = record.topic.split("/")[1]
        found[study] = found.get(study, 0) + 1
    return found


def test_a_finished_study_leaves_the_log_on_command_and_all_others_stay(bus: Bus) -> None:
    bus.hub()
    with (
        trialbus.Publisher(bus.endpoint) as publisher,
        trialbus.subscribe(study="other", start="earliest", endpoint=bus.endpoint) as inbox,
        Link(bus.endpoint) as link,
    ):
        for _ in range(5):
            run_study(publisher, "done", 2000)
            run_study(publisher, "other", 500, ends=False)
        run_study(publisher, "running", 10, ends=False)
        run_study(publisher, "last", 10)
        publisher.flush(20)
        end = hub_status(link).end
        forget_study(link, "done")
        forget_study(link, "last")
        until(lambda: hub_status(link).retention.removed == 5 * 2002 + 12)
        # Only what says that a request was answered is left of it.
        left = {"done": 5, "other": 5 * 502, "running": 12, "last": 1}
        assert counts(bus) == left
        bus.processes["hub"].restart()
        assert counts(bus) == left
        publisher.publish(trialbus.Stop(study="later"))
        publisher.flush(20)
        (later,) = trialbus.replay(trialbus.Stop, endpoint=bus.endpoint)
        assert later.offset == end, "the number of a removed event was given again"
        assert sum(1 for _ in inbox.read_to(end)) == 5 * 502


def test_removed_events_give_their_space_back(bus: Bus) -> None:
    bus.hub()
    with trialbus.Publisher(bus.endpoint) as publisher, Link(bus.endpoint) as link:
        run_study(publisher, "done", 50_000)
        publisher.flush(30)
        forget_study(link, "done")
        until(lambda: not hub_status(link).retention.removing)
        publisher.publish(trialbus.Stop(study="x"))
        publisher.flush(20)
    bus.processes["hub"].stop()
    with closing(sqlite3.connect(bus.directory / "log" / "events.db")) as db:
        pages, free = (
            db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count")
        )
        assert pages - free < 20


def test_a_study_that_runs_or_is_unknown_stays_and_the_hub_says_why(bus: Bus) -> None:
    bus.hub()
    with trialbus.Publisher(bus.endpoint) as publisher, Link(bus.endpoint) as link:
        run_study(publisher, "s", 1, ends=False)
        publisher.flush(20)
        with pytest.raises(HubRefusedError, match="has not finished; stop it first"):
            forget_study(link, "s")
        with pytest.raises(HubRefusedError, match="no events of a study 'none'"):
            forget_study(link, "none")


def test_a_study_that_was_submitted_again_stays(bus: Bus) -> None:
    bus.hub("--keep-finished", "0")
    with trialbus.Publisher(bus.endpoint) as publisher, Link(bus.endpoint) as link:
        run_study(publisher, "again", 3)
        run_study(publisher, "again", 3, ends=False)
        run_study(publisher, "done", 3)
        publisher.flush(20)
        until(lambda: hub_status(link).retention.removed >= 5, timeout_s=20)
    assert counts(bus)["again"] >= 5


def test_what_a_durable_name_has_not_read_is_protected_and_reported(bus: Bus) -> None:
    bus.hub("--keep-finished", "0")
    with trialbus.Publisher(bus.endpoint) as publisher, Link(bus.endpoint) as link:
        with trialbus.subscribe(
            trialbus.EvaluationComplete, name="slow", start="earliest", endpoint=bus.endpoint
        ) as slow:
            slow.wait_ready()
        run_study(publisher, "s", 10)
        publisher.flush(20)
        until(lambda: hub_status(link).retention.held_back == {"s": ["slow"]}, timeout_s=20)
        with pytest.raises(HubRefusedError, match="not read yet by slow"):
            forget_study(link, "s")
        assert counts(bus) == {"s": 13}
        forget_name(link, "slow")
        until(lambda: hub_status(link).retention.removed == 12, timeout_s=20)
        with pytest.raises(HubRefusedError, match="no durable name 'slow'"):
            forget_name(link, "slow")


def test_an_idle_durable_name_that_wants_none_of_it_holds_nothing_back(bus: Bus) -> None:
    bus.hub()
    with (
        trialbus.Publisher(bus.endpoint) as publisher,
        trialbus.subscribe(
            trialbus.Prune, name="prunes", start="earliest", endpoint=bus.endpoint
        ) as prunes,
        Link(bus.endpoint) as link,
    ):
        run_study(publisher, "s", 10)
        publisher.flush(20)
        prunes.wait_ready()
        publisher.publish(trialbus.Prune(study="t", trial=0, step=0))
        assert prunes.next(20) is not None
        # The loop commits as it reads on.
        until(lambda: prunes.next(0.0) is None and hub_status(link).durable["prunes"].lag == 0)
        forget_study(link, "s")


def test_the_command_says_what_it_could_not_do(bus: Bus) -> None:
    bus.hub()

    def forget(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "trialbus_services", "forget", *arguments]
        return subprocess.run(
            [*command, "--endpoint", bus.endpoint],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    with trialbus.Publisher(bus.endpoint) as publisher:
        run_study(publisher, "s", 10)
        publisher.flush(20)
    assert forget("s").returncode == 0
    assert counts(bus) == {"s": 1}
    again = forget("s")
    assert (again.returncode, again.stdout) == (1, "")
    assert "no events of a study 's'" in again.stderr
    assert forget().returncode == 2
