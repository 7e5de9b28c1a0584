"""The reporter on a real hub: every finished study gets exactly one complete report."""

from __future__ import annotations

import contextlib
import signal
from pathlib import Path

import psutil
import pytest

import trialbus
from support.processes import Bus, Managed
from support.stories import make_study_end, publish, record_study
from support.until import until

pytestmark = pytest.mark.timeout(150)  # each starts several processes


def reporter(bus: Bus, figures: str = "[history]") -> Managed:
    return bus.service("reporter", "storage.url=sqlite:///studies.db", f"report.figures={figures}")


def recorded(bus: Bus, *studies: str, n_params: int = 1) -> None:
    for study in studies:
        record_study(study, f"sqlite:///{bus.directory}/studies.db", n_params=n_params)


def reports(bus: Bus) -> list[trialbus.ReportReady]:
    found = [
        record.event for record in trialbus.replay(trialbus.ReportReady, endpoint=bus.endpoint)
    ]
    return [event for event in found if isinstance(event, trialbus.ReportReady)]


def until_reported(bus: Bus, study: str) -> trialbus.ReportReady:
    """Wait for the report of a study; reports are made in the order of the studies' ends."""
    return until(
        lambda: next((event for event in reports(bus) if event.study == study), None),
        60,
        f"the report of {study}",
    ) or pytest.fail("no report")


def processes_for(bus: Bus) -> list[psutil.Process]:
    """Processes that make a report for the reporter, children of the fork server."""
    with contextlib.suppress(psutil.Error):
        service = psutil.Process(bus.processes["reporter"].pid)
        return [child for server in service.children() for child in server.children()]
    return []


def until_halfway(bus: Bus) -> psutil.Process:
    """Wait until a report is being written."""
    until(lambda: list((bus.directory / "reports").glob(".unfinished-*")), 60, "half a report")
    return until(lambda: processes_for(bus), 10, "its process")[0]


def test_a_study_that_finished_while_no_reporter_ran_is_reported_when_one_comes(bus: Bus) -> None:
    bus.hub()
    recorded(bus, "early", "late")
    publish(bus, make_study_end("early"))
    service = reporter(bus)
    first = until_reported(bus, "early")
    assert (first.error, first.submission) == (None, "1")
    assert all(Path(path).is_file() for path in first.paths)
    service.stop()
    publish(bus, make_study_end("late"))
    service.start()
    until_reported(bus, "late")
    assert [event.study for event in reports(bus)] == ["early", "late"]


def test_the_same_end_told_twice_makes_one_report(bus: Bus) -> None:
    bus.hub()
    recorded(bus, "twice", "other")
    publish(bus, make_study_end("twice"), make_study_end("twice"), make_study_end("other"))
    publish(bus, make_study_end("twice", submission="2"))
    reporter(bus)
    until(lambda: len(reports(bus)) == 3, 60, "three reports")
    told = [(event.study, event.submission) for event in reports(bus)]
    assert told == [("twice", "1"), ("other", "1"), ("twice", "2")]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_reporter_that_ends_in_the_middle_leaves_no_half_report_and_makes_it_again(
    bus: Bus, number: signal.Signals
) -> None:
    bus.hub()
    recorded(bus, "big", n_params=60)
    publish(bus, make_study_end("big"))
    service = reporter(bus, figures="null")
    making = until_halfway(bus)
    service.signal(number)
    service.wait(20)
    until(lambda: not making.is_running(), 20, "the end of the process that made it")
    assert not (bus.directory / "reports" / "big").exists()
    assert reports(bus) == []
    service.start()
    ready = until_reported(bus, "big")
    assert (len(reports(bus)), ready.error) == (1, None)
    assert "</html>" in Path(ready.paths[0]).read_text()[-100:]


def test_a_report_whose_process_crashes_is_made_again_by_the_same_reporter(bus: Bus) -> None:
    bus.hub()
    recorded(bus, "big", n_params=60)
    publish(bus, make_study_end("big"))
    service = reporter(bus, figures="null")
    until_halfway(bus).kill()
    assert until_reported(bus, "big").error is None
    assert "try 1 of 3: the process that made it was killed by SIGKILL" in service.printed()


def test_a_report_that_cannot_be_made_is_told_so_and_holds_up_no_other(bus: Bus) -> None:
    bus.hub()
    recorded(bus, "digits")
    publish(bus, make_study_end("digts"), make_study_end("digits"))
    service = reporter(bus)
    until_reported(bus, "digits")
    wrong, right = reports(bus)
    assert "no study 'digts'" in str(wrong.error)
    assert "did you mean 'digits'?" in str(wrong.error)
    assert (wrong.paths, right.error) == ([], None)
    assert service.printed().count("no report of study 'digts' at try") == 3
    assert service.stop() == 0


def test_a_reporter_outlives_its_hub_and_answers_when_it_is_back(bus: Bus) -> None:
    hub = bus.hub()
    recorded(bus, "first", "second")
    publish(bus, make_study_end("first"))
    service = reporter(bus)
    until_reported(bus, "first")
    hub.restart()
    publish(bus, make_study_end("second"))
    until_reported(bus, "second")
    assert service.running


def test_a_second_reporter_is_refused_and_names_the_first(bus: Bus) -> None:
    bus.hub()
    first = reporter(bus)
    until(lambda: "serving on" in first.printed(), 30, "the first reporter")
    second = bus.run("second", first.command)
    assert second.wait(30) == 3
    assert "reporter 'reporter' is already registered (host " in second.printed()
    assert f"pid {first.pid})" in second.printed()
    assert "serving on" not in second.printed()
    first.restart()  # after SIGKILL, the next serves at once
    until(lambda: first.printed().count("serving on") == 2, 30, "the next reporter")
