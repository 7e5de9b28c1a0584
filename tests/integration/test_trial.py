"""The trainer's handle: attach, report, prune, and the ways a training ends."""

from __future__ import annotations

import os
import signal
import sys
import uuid
from collections.abc import Iterator

import pytest
import torch

import trialbus
from support.processes import Bus, Managed
from trialbus.messages import events
from trialbus.trainer import assignment, request

ASSIGNED = trialbus.TrialAssigned(
    study="s", trial=7, attempt=2, request="r", session="w", params={"lr": 0.5}, seed=11, budget=4
)


@pytest.fixture
def inbox(bus: Bus) -> Iterator[trialbus.Subscriber[trialbus.Event | trialbus.UnknownEvent]]:
    bus.hub()
    with trialbus.subscribe(endpoint=bus.endpoint) as subscriber:
        subscriber.wait_ready(20)
        yield subscriber


@pytest.fixture(autouse=True)
def environment(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in assignment.make_environment(ASSIGNED, bus.endpoint).items():
        monkeypatch.setenv(name, value)


def until_type(
    inbox: trialbus.Subscriber[trialbus.Event | trialbus.UnknownEvent], type_: type[trialbus.Event]
) -> trialbus.Event:
    while True:
        event = inbox.next(20)
        assert event is not None, f"no {type_.__name__} arrived"
        if isinstance(event, type_):
            return event


def test_a_trial_from_the_environment_has_the_values_of_its_assignment(bus: Bus) -> None:
    with trialbus.attach(defaults={"lr": 0.1, "width": 64}, budget=20) as trial:
        assert (trial.study, trial.number, trial.attempt, trial.seed) == ("s", 7, 2, 11)
        assert trial.params == {"lr": 0.5, "width": 64}
        assert trial.budget == 4
        with pytest.raises(TypeError):
            trial.params["lr"] = 1.0  # type: ignore[index]
        bus.hub()


def test_a_normal_end_completes_the_trial(
    inbox: trialbus.Subscriber[trialbus.Event | trialbus.UnknownEvent],
) -> None:
    with trialbus.attach() as trial:
        trial.report(0, {"val": {"accuracy": 0.5}})
    evaluation = until_type(inbox, trialbus.EvaluationComplete)
    assert isinstance(evaluation, trialbus.EvaluationComplete)
    assert evaluation.metrics == {"val/accuracy": 0.5}
    assert (evaluation.trial, evaluation.attempt) == (7, 2)
    end = until_type(inbox, trialbus.TrialFinished)
    assert isinstance(end, trialbus.TrialFinished)
    assert (end.state, end.values) == ("complete", None)


def test_values_that_the_trainer_passes_to_complete_are_in_the_event(
    inbox: trialbus.Subscriber[trialbus.Event | trialbus.UnknownEvent],
) -> None:
    with trialbus.attach() as trial:
        trial.complete(0.25)
    end = until_type(inbox, trialbus.TrialFinished)
    assert isinstance(end, trialbus.TrialFinished)
    assert end.values == [0.25]


def test_an_exception_fails_the_trial_and_is_raised_again(
    inbox: trialbus.Subscriber[trialbus.Event | trialbus.UnknownEvent],
) -> None:
    with pytest.raises(ZeroDivisionError), trialbus.attach():
        _ = 1 / 0
    end = until_type(inbox, trialbus.TrialFinished)
    assert isinstance(end, trialbus.TrialFinished)
    assert end.state == "failed"
    assert str(end.error).splitlines()[-1] == "ZeroDivisionError: division by zero"


def test_a_prune_ends_the_with_block_quietly_and_only_for_its_attempt(
    bus: Bus, inbox: trialbus.Subscriber[trialbus.Event | trialbus.UnknownEvent]
) -> None:
    reached = 0
    with trialbus.Publisher(bus.endpoint) as optimizer:
        with trialbus.attach() as trial:
            trial.report(0, {"loss": 1})
            until_type(inbox, trialbus.EvaluationComplete)
            optimizer.publish(trialbus.Prune(study="s", trial=7, attempt=1, step=0))
            trial.report(1, {"loss": 1}, wait=0.3)
            reached = 1
            optimizer.publish(trialbus.Prune(study="s", trial=7, attempt=2, step=0))
            trial.report(2, {"loss": 1}, wait=20)
            reached = 2
        assert reached == 1
    end = until_type(inbox, trialbus.TrialFinished)
    assert isinstance(end, trialbus.TrialFinished)
    assert end.state == "pruned"


def test_after_a_wrong_report_is_refused_the_trial_can_go_on(
    inbox: trialbus.Subscriber[trialbus.Event | trialbus.UnknownEvent],
) -> None:
    with trialbus.attach() as trial:
        with pytest.raises(TypeError, match="metric 'loss' is None"):
            trial.report(0, {"loss": None})
        with pytest.raises(ValueError, match="step is -1"):
            trial.report(-1, {"loss": 1})
        trial.report(0, {"loss": 1})
    until_type(inbox, trialbus.EvaluationComplete)


def test_the_error_for_a_malformed_assignment_names_the_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TRIALBUS_TRIAL", "{}")
    with pytest.raises(trialbus.SpecError, match="TRIALBUS_TRIAL"):
        trialbus.attach()


SCRIPT = """
import sys, trialbus
with trialbus.attach(study="free", endpoint=sys.argv[1]) as trial:
    print(f"trial {trial.number} attempt {trial.attempt}", flush=True)
    if sys.argv[2] == "hang":
        import time; time.sleep(600)
    trial.report(0, {"loss": trial.params["x"]})
"""


def test_the_trial_of_a_free_standing_process_that_dies_is_handed_out_again(bus: Bus) -> None:
    bus.hub()
    bus.service("optimizer")
    spec = trialbus.StudySpec(
        name="free",
        params={"x": trialbus.FloatParam(low=0, high=1)},
        objectives=(trialbus.Objective(metric="loss"),),
        n_trials=2,
    )
    command = [sys.executable, "-c", SCRIPT, bus.endpoint]

    def trainer(name: str, how: str = "end") -> Managed:
        return bus.run(name, [*command, how])

    with (
        trialbus.subscribe(trialbus.StudyFinished, endpoint=bus.endpoint) as finished,
        trialbus.subscribe(trialbus.TrialStarted, endpoint=bus.endpoint) as started,
        trialbus.Publisher(bus.endpoint) as publisher,
    ):
        finished.wait_ready(20)
        started.wait_ready(20)
        publisher.publish(
            events.StudySubmitted(study="free", spec=spec, submission=uuid.uuid4().hex)
        )
        hanging = trainer("hanging", "hang")
        first = started.next(30)
        assert first is not None
        assert trainer("second").wait(30) == 0
        os.kill(hanging.pid, signal.SIGTERM)
        hanging.wait(10)
        # Killed without a word: its time-to-live has to pass, unless somebody says so.
        publisher.publish(
            events.TrialFinished(
                study="free", trial=first.trial, attempt=first.attempt, state="preempted"
            )
        )
        third = trainer("third")
        assert third.wait(30) == 0
        assert f"trial {first.trial} attempt 1" in third.printed()
        end = finished.next(20)
    assert end is not None
    assert (end.reason, end.counts.complete) == ("exhausted", 2)


def test_a_trainer_that_gets_no_trial_in_time_withdraws_its_request(
    bus: Bus,
    inbox: trialbus.Subscriber[trialbus.Event | trialbus.UnknownEvent],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("TRIALBUS_TRIAL")
    with pytest.raises(trialbus.TrialbusError, match=r"no trial was assigned within 0\.2 s"):
        trialbus.attach(study="s", timeout_s=0.2, endpoint=bus.endpoint)
    until_type(inbox, trialbus.RequestWithdrawn)


@pytest.mark.usefixtures("inbox")
def test_a_trainer_that_waits_for_a_trial_says_what_it_waits_for(
    bus: Bus,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.delenv("TRIALBUS_TRIAL")
    monkeypatch.setattr(request, "_FIRST_NOTE_S", 0.3)
    with pytest.raises(trialbus.TrialbusError, match="no trial was assigned"):
        trialbus.attach(study="nostudy", timeout_s=2, endpoint=bus.endpoint)
    note = "waiting for a trial of study 'nostudy', which nobody has submitted on this bus"
    assert [r.message for r in caplog.records if "waiting" in r.message] == [note]


def test_an_assignment_is_unchanged_after_the_environment() -> None:
    given = assignment.make_environment(ASSIGNED, "ipc://x")
    back = assignment.parse_assignment(given["TRIALBUS_TRIAL"])
    assert (back.study, back.trial, back.attempt, back.params, back.seed, back.budget) == (
        "s",
        7,
        2,
        {"lr": 0.5},
        11,
        4,
    )


class Numbers(torch.utils.data.Dataset[torch.Tensor]):
    """A data set with items that publish in the forked worker of the loader."""

    def __init__(self, publisher: trialbus.Publisher) -> None:
        self._publisher = publisher

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> torch.Tensor:
        self._publisher.publish(
            trialbus.EvaluationComplete(
                study="s", trial=100 + index, step=0, metrics={"item": index}
            )
        )
        assert self._publisher.flush(10)
        return torch.tensor(index)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
def test_a_training_reports_while_its_loader_forks_and_so_do_the_forks(
    inbox: trialbus.Subscriber[trialbus.Event | trialbus.UnknownEvent], bus: Bus
) -> None:
    with trialbus.attach() as trial, trialbus.Publisher(bus.endpoint) as publisher:
        numbers = Numbers(publisher)
        loader = torch.utils.data.DataLoader(
            numbers, batch_size=None, num_workers=2, multiprocessing_context="fork"
        )
        for step, item in enumerate(loader):
            trial.report(step, {"item": item})
    heard: list[events.EvaluationComplete] = []
    while not isinstance(event := inbox.next(20), events.TrialFinished):
        assert event is not None
        if isinstance(event, events.EvaluationComplete):
            heard.append(event)
    assert [e.metrics["item"] for e in heard if e.trial == 7] == list(range(8))
    assert {e.trial for e in heard} == {7, *range(100, 108)}
    assert len(heard) == 16
