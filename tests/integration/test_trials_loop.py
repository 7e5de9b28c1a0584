"""Trainings without a worker: the loop over trials, and a study that has ended."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

import trialbus
from support.client import SPEC, Client, start_optimizer
from support.processes import Bus
from trialbus.trainer import request

JOB = """
import sys, trialbus
n = 0
for trial in trialbus.trials("quadratic", endpoint=sys.argv[1]):
    with trial:
        trial.report(0, {"loss": trial.params["x"] ** 2})
        n += 1
print(f"ended after {n} trials", flush=True)
"""


def test_every_job_of_an_array_ends_with_the_study(
    bus: Bus, client: Callable[[], Client], tmp_path: Path
) -> None:
    bus.hub()
    start_optimizer(bus)
    listener = client()
    listener.submit(msgspec.structs.replace(SPEC, n_trials=3))
    script = tmp_path / "job.py"
    script.write_text(JOB)
    command = [sys.executable, str(script), bus.endpoint]
    jobs = [bus.run(f"job {number}", command) for number in range(5)]
    assert [job.wait(60) for job in jobs] == [0] * 5
    n_trials = [int(job.printed().split("ended after ")[1].split()[0]) for job in jobs]
    assert sum(n_trials) == 3
    assert all("all of its trials are done" in job.printed() for job in jobs)
    assert listener.next(trialbus.StudyFinished).counts.complete == 3
    began = time.monotonic()
    with pytest.raises(trialbus.StudyEndedError, match="all of its trials are done") as caught:
        trialbus.attach(study=SPEC.name, endpoint=bus.endpoint)
    assert (caught.value.study, caught.value.reason) == (SPEC.name, "exhausted")
    assert time.monotonic() - began < 20
    listener.submit(msgspec.structs.replace(SPEC, n_trials=4))
    with trialbus.attach(study=SPEC.name, endpoint=bus.endpoint, timeout_s=30) as trial:
        trial.report(0, {"loss": 1.0})
        assert trial.number == 3


def test_a_study_that_was_refused_says_why_no_trial_is_left(
    bus: Bus, client: Callable[[], Client]
) -> None:
    bus.hub()
    start_optimizer(bus)
    listener = client()
    unknown = trialbus.Component(type="NoSampler")
    listener.submit(msgspec.structs.replace(SPEC, sampler=unknown))
    assert listener.next(trialbus.StudyFinished).reason == "failed"
    with pytest.raises(trialbus.StudyEndedError, match=r"it failed: .*NoSampler"):
        trialbus.attach(study=SPEC.name, endpoint=bus.endpoint)


def test_a_trial_of_the_loop_ends_however_its_body_ends(
    bus: Bus, client: Callable[[], Client]
) -> None:
    bus.hub()
    start_optimizer(bus)
    listener = client()
    listener.submit(msgspec.structs.replace(SPEC, n_trials=3))

    def run_without_with() -> None:
        for trial in trialbus.trials(SPEC.name, endpoint=bus.endpoint):
            trial.report(0, {"loss": 1.0})
            if trial.number == 1:
                raise ValueError("no data")

    with pytest.raises(ValueError, match="no data"):
        run_without_with()
    ends = [listener.next(trialbus.TrialFinished) for _ in range(2)]
    assert [(end.trial, end.state) for end in ends] == [(0, "complete"), (1, "failed")]
    assert ends[1].error == "the loop over trials was left before the trial had ended"
    for trial in trialbus.trials(SPEC.name, endpoint=bus.endpoint):
        with trial:
            trial.report(0, {"loss": 1.0})
            break
    assert listener.next(trialbus.TrialFinished).state == "complete"


def test_a_trainer_without_a_hub_says_at_once_that_no_hub_answers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request, "_FIRST_NOTE_S", 0.1)
    address = f"ipc://{tmp_path}/h"
    with caplog.at_level(logging.WARNING), pytest.raises(trialbus.HubUnavailableError):
        trialbus.attach(study="s", endpoint=address, timeout_s=1)
    [note] = [record.message for record in caplog.records]
    assert note.startswith(
        f"no hub answers at {address}; waiting 1 s for one, which `trialbus hub`"
    )


def test_a_trainer_that_waits_says_once_what_it_waits_for(
    bus: Bus, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus.hub()
    with trialbus.Link(bus.endpoint) as link:
        link.wait_connected(20)
    monkeypatch.setattr(request, "_FIRST_NOTE_S", 0.5)
    monkeypatch.setattr(request, "_CHECK_EVERY_S", 0.1)
    with pytest.raises(trialbus.TrialbusError, match="no trial was assigned"):
        trialbus.attach(study="nostudy", timeout_s=2, endpoint=bus.endpoint)
    note = "waiting for a trial of study 'nostudy', which nobody has submitted on this bus"
    assert [r.message for r in caplog.records if "waiting" in r.message] == [note]


def test_without_an_optimizer_the_log_says_that_the_study_has_ended(
    bus: Bus, client: Callable[[], Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request, "_FIRST_NOTE_S", 0.5)
    bus.hub()
    listener = client()
    submission = listener.submit()
    ended = trialbus.StudyFinished(
        study=SPEC.name, submission=submission, reason="stopped", error="by ada"
    )
    listener.publisher.publish(ended)
    with pytest.raises(trialbus.StudyEndedError, match=r"somebody stopped it: by ada"):
        trialbus.attach(study=SPEC.name, endpoint=bus.endpoint)
    listener.next(trialbus.RequestWithdrawn)
    listener.submit()
    with pytest.raises(trialbus.TrialbusError, match="no trial was assigned"):
        trialbus.attach(study=SPEC.name, endpoint=bus.endpoint, timeout_s=1)


@pytest.mark.timeout(120)
def test_a_study_ends_though_a_process_that_the_hub_never_knew_requested_a_trial(
    bus: Bus, client: Callable[[], Client]
) -> None:
    hub = bus.hub()
    start_optimizer(bus)
    listener = client()
    listener.submit(msgspec.structs.replace(SPEC, n_trials=2))
    orphan = trialbus.TrialRequested(study=SPEC.name, request="orphan", session="nobody")
    listener.publisher.publish(orphan)
    lost = listener.next(trialbus.TrialAssigned, request="orphan")
    listener.run_one()
    hub.restart()
    again = listener.ask()  # waits until the optimizer has noticed
    assert (again.trial, again.attempt) == (lost.trial, 1)
    listener.finish(again, values=[1.0])
    assert listener.next(trialbus.StudyFinished).counts.complete == 2
