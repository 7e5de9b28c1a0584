"""Event types: which types can be subscribed to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import trialbus
from trialbus.messages import codec
from trialbus.testing import TestBus
from trialbus_services.cli import main as cli


@pytest.fixture
def bus() -> Iterator[TestBus]:
    with TestBus() as bus:
        yield bus


@pytest.mark.parametrize(
    ("type_", "message"),
    [
        ("evaluation_complet", r"'evaluation_complet' does not exist; did you mean 'evaluation_c"),
        ("study_finished/digits/*", r"does not exist; did you mean 'study_finished'"),
        ("zzz", r"'zzz' does not exist \(expected one of artifact_logged, .*, x_<name of a user's"),
        ("", r"'' does not exist \(expected one of"),
        (trialbus.TrialEvent, r"'trial_event' does not exist"),
        (trialbus.Event, r"'event' does not exist"),
        (int, r"<class 'int'> is not an event type \(expected an event class, such as trialbus.Ev"),
        (trialbus.StudySpec, r"StudySpec'> is not an event type"),
        (trialbus.Stop(study="s", at=0.0), r"Stop\(study='s'.* is not an event type"),
        (None, r"None is not an event type"),
    ],
    ids=str,
)
def test_a_type_that_no_event_has_is_refused_with_the_nearest_type(
    type_: Any, message: str
) -> None:
    with pytest.raises(trialbus.SpecError, match=message):
        trialbus.subscribe(type_, endpoint="ipc:///nowhere")
    with pytest.raises(trialbus.SpecError, match=message):
        next(trialbus.replay(type_, endpoint="ipc:///nowhere"))


@pytest.mark.parametrize("start", ["earlest", None, -1, 1.5, True, ["now"]], ids=repr)
def test_a_start_that_is_no_place_in_the_log_is_refused(start: Any) -> None:
    with pytest.raises(trialbus.SpecError, match=r"start: .* \(expected earliest, now or an off"):
        trialbus.subscribe(trialbus.Stop, start=start, endpoint="ipc:///nowhere")


def test_the_command_events_answers_a_misspelt_type_with_the_nearest(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["events", "--type", "prun"]) == 2
    assert "event type: 'prun' does not exist; did you mean 'prune'?" in capsys.readouterr().err


@pytest.mark.parametrize("type_", ["stop", "x_of_another_process", "*", trialbus.Stop], ids=str)
def test_a_built_in_type_and_a_type_of_users_can_be_subscribed_to(bus: TestBus, type_: Any) -> None:
    with trialbus.subscribe(type_, endpoint=bus.endpoint) as events:
        assert events.wait_ready(20) == 0


def test_a_type_that_no_topic_can_hold_is_refused_before_it_blocks_an_outbox() -> None:
    class Mine(trialbus.Event, frozen=True, kw_only=True, tag="x_mine/too"):
        pass

    refusal = "'x_mine/too' cannot be a tag"
    with pytest.raises(ValueError, match=refusal):
        codec.register(Mine)
    with pytest.raises(ValueError, match=refusal):
        print(Mine(study="s").topic)
