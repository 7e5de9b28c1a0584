"""A hub whose files are deleted or replaced while it runs says so, ends, and loses nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import trialbus
from support.evaluations import make_evaluation, read_steps
from support.processes import Bus
from trialbus.client.admin import hub_status
from trialbus.errors import LogInUseError
from trialbus.hub.log import EventLog

_N = 50


@pytest.mark.parametrize(
    "name", ["events.db", "events.db-wal", "events.lock", "events.end", "events.*", "the folder"]
)
def test_a_file_of_the_log_that_is_deleted_is_noticed_at_once_and_costs_no_event(
    bus: Bus, name: str
) -> None:
    hub = bus.hub()
    log = bus.directory / "log"
    with trialbus.Publisher(bus.endpoint) as publisher, trialbus.Link(bus.endpoint) as link:
        for step in range(_N):
            publisher.publish(make_evaluation(step))
        assert publisher.flush(20)
        if name == "the folder":
            shutil.rmtree(log)
        else:
            for file in log.glob(name):
                file.unlink()
        assert hub.wait(10) == 1
        assert "was deleted or replaced while the hub had it open" in hub.printed()
        hub.start()
        with trialbus.subscribe(start="earliest", link=link) as inbox:
            assert read_steps(inbox, _N) == list(range(_N))
        status = hub_status(link)
        assert (status.lost, status.damaged, status.end) == (0, 0, _N)


def test_a_log_in_whose_place_a_copy_was_put_is_kept_beside_the_copy(
    bus: Bus, tmp_path: Path
) -> None:
    hub = bus.hub()
    log = bus.directory / "log"
    with trialbus.Publisher(bus.endpoint) as publisher:
        for step in range(_N):
            publisher.publish(make_evaluation(step))
        assert publisher.flush(20)
        shutil.copy(log / "events.db", tmp_path / "older")
        (tmp_path / "older").replace(log / "events.db")
        assert hub.wait(10) == 1
    (rescued,) = log.glob("rescued-*/events.db")
    shutil.copy(rescued, tmp_path / "events.db")
    log_of_rescued = EventLog(tmp_path)
    assert log_of_rescued.end == _N
    log_of_rescued.close()


@pytest.mark.parametrize("name", ["events.lock", "events.db"])
def test_a_second_hub_does_not_open_a_live_log_whose_file_was_deleted(
    tmp_path: Path, name: str
) -> None:
    log = EventLog(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(LogInUseError):
        EventLog(tmp_path)
    log.close()
