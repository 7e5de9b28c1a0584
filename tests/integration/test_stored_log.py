"""`watch`, `events` and `status` read the log of a hub that has ended."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from support.processes import Bus
from support.stories import make_study_end, make_study_start, make_trial
from trialbus.client.publisher import Publisher
from trialbus.hub.stored_log import read_stored_events


@pytest.fixture
def ended(bus: Bus) -> Bus:
    """A bus whose hub has ended, with the log beside the socket, as by default."""
    hub = [sys.executable, "-m", "trialbus.hub", "--endpoint", bus.endpoint, "--dir"]
    process = bus.run("hub", [*hub, str(bus.directory)])
    with Publisher(endpoint=bus.endpoint) as publisher:
        for event in [*make_study_start(), *make_trial(0), make_study_end()]:
            publisher.publish(event)
        for event in [*make_study_start("other"), *make_trial(0, "other")]:
            publisher.publish(event)
        assert publisher.flush(20)
    assert process.stop() == 0
    return bus


def run(bus: Bus, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "trialbus_services", *arguments, "--endpoint", bus.endpoint]
    return subprocess.run(
        command, cwd=bus.directory, capture_output=True, text=True, timeout=40, check=False
    )


def test_events_are_read_from_the_disk_with_the_same_filters(ended: Bus) -> None:
    done = run(ended, "events", "--type", "trial_closed", "--study", "quadratic", "--json")
    assert done.returncode == 0, done.stderr
    assert "no hub runs; this is what its log in" in done.stderr
    (line,) = done.stdout.splitlines()
    record = json.loads(line)
    assert record["event"]["type"] == "trial_closed"
    following = run(ended, "events", "--from", str(record["offset"] + 1), "--json")
    assert json.loads(following.stdout.splitlines()[0])["offset"] == record["offset"] + 1
    assert "the log has no such event" in run(ended, "events", "--type", "pause").stderr


def test_a_finished_study_is_summed_up_from_the_disk(ended: Bus) -> None:
    done = run(ended, "watch", "quadratic")
    assert done.returncode == 0, done.stderr
    assert "loss 0.125" in done.stdout
    assert "no hub runs" in done.stderr


def test_the_status_has_the_studies_of_the_log(ended: Bus) -> None:
    done = run(ended, "status")
    assert done.returncode == 1
    assert "study quadratic: exhausted" in done.stdout
    assert "study other: running" in done.stdout


def test_reading_a_log_leaves_its_events_as_they_are(ended: Bus) -> None:
    file = ended.directory / "events.db"
    before = file.read_bytes()
    topics = [record.topic for record in read_stored_events(ended.directory)]
    assert topics[0] == "study_submitted/quadratic/"
    assert file.read_bytes() == before
