"""The handle of a trial: the values of an assignment, and the data of a prune."""

from __future__ import annotations

import itertools
import json
import pickle
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import trialbus
from support.until import until
from trialbus.client.link import Link
from trialbus.client.presence import Presence
from trialbus.client.ring_directory import GROUP_VARIABLE
from trialbus.protocol.start_folder import FOLDER_VARIABLE
from trialbus.testing import TestBus
from trialbus.trainer.assignment import TRIAL_VARIABLE, make_environment, parse_assignment
from trialbus.trainer.attempt_limits import AttemptLimits
from trialbus.trainer.channel import BusChannel, PrintingChannel
from trialbus.trainer.distributed import Ranks
from trialbus.trainer.run_directory import RUN_DIRECTORY_VARIABLE
from trialbus.trainer.trial import Trial


@pytest.fixture
def bus() -> Iterator[TestBus]:
    with TestBus() as bus:
        yield bus


def test_an_assignment_is_the_same_event_after_the_environment() -> None:
    assigned = trialbus.TrialAssigned(
        study="s",
        trial=7,
        attempt=2,
        request="r",
        session="w",
        params={"lr": 0.5, "kind": "mlp"},
        seed=11,
        budget=4,
        evaluation=trialbus.Evaluation(interval=2),
        config={"model": {"width": 64}},
        config_name="small",
    )
    assert parse_assignment(make_environment(assigned, "ipc://x")[TRIAL_VARIABLE]) == assigned


def test_a_trial_can_be_made_from_the_environment_of_the_earlier_version() -> None:
    text = json.dumps(
        {
            "study": "s",
            "trial": 7,
            "attempt": 1,
            "params": {"lr": 0.5},
            "seed": 3,
            "budget": None,
            "evaluation": {"interval": 2, "episodes": None},
            "config": {"model": {"width": 64}},
            "config_name": None,
        }
    )
    with Trial(parse_assignment(text), PrintingChannel(), 9, Ranks()) as trial:
        assert (trial.study, trial.number, trial.attempt, trial.seed) == ("s", 7, 1, 3)
        assert (trial.budget, trial.evaluation.interval) == (9, 2)
        assert trial.config.nested() == {"model": {"width": 64}, "lr": 0.5}


@pytest.mark.parametrize(
    ("by", "reason", "message"),
    [
        (
            "",
            "step 3: 0.1 < median 0.5 of 9 trials",
            "was pruned at step 3: 0.1 < median 0.5 of 9 trials",
        ),
        ("ada@desk", "flat", "was pruned by ada@desk at step 3: flat"),
        ("ada@desk", "", "was pruned by ada@desk at step 3"),
    ],
    ids=["optimizer", "person", "person without a reason"],
)
def test_a_pruned_trial_has_the_reason_step_and_person_of_the_prune(
    bus: TestBus, monkeypatch: pytest.MonkeyPatch, by: str, reason: str, message: str
) -> None:
    bus.assign(monkeypatch.setenv, params={})
    with trialbus.attach() as trial:
        assert not trial.should_prune()
        assert trial.prune_command is None
        # The trial's commands are subscribed to before its first event is in the log.
        until(lambda: bus.events(trialbus.TrialStarted), 20, "the start of the trial")
        bus.publish(trialbus.Prune(study="test", trial=0, step=3, reason=reason, by=by))
        with pytest.raises(trialbus.TrialPruned) as caught:
            trial.report(4, {"loss": 1.0}, wait=20)
        pruned = pickle.loads(pickle.dumps(caught.value))
        assert str(pruned) == f"trial 0 of 'test' {message}"
        assert (pruned.step, pruned.reason, pruned.by) == (3, reason, by)
        assert trial.should_prune()
        command = trial.prune_command
        assert command is not None
        assert (command.step, command.reason, command.by) == (3, reason, by)


def test_a_script_may_end_its_trial_as_pruned_without_a_command(
    bus: TestBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus.assign(monkeypatch.setenv, params={})
    with trialbus.attach():
        raise trialbus.TrialPruned
    assert [event.state for event in bus.events(trialbus.TrialFinished)] == ["pruned"]
    assert (trialbus.TrialPruned().step, trialbus.TrialPruned("x").reason) == (None, "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"budget": "x"}, r"budget: 'x' is not a number of steps \(expected an integer\)"),
        ({"budget": 2.5}, r"budget: 2.5 is not a number of steps"),
        ({"budget": -1}, r"budget: -1 is not a number of steps"),
        ({"defaults": 5}, r"defaults: 5 is not a mapping \(expected params by name\)"),
        ({"defaults": [("lr", 1)]}, r"defaults: \[\('lr', 1\)\] is not a mapping"),
        ({"defaults": {3: 1}}, r"defaults: 3 is not the name of a param \(expected text\)"),
        ({"defaults": {"": 1}}, r"defaults: '' is not the name of a param"),
    ],
    ids=str,
)
def test_a_wrong_argument_of_attach_is_named(
    bus: TestBus, monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(trialbus.SpecError, match=message):
        trialbus.attach(**arguments)
    bus.assign(monkeypatch.setenv, params={})
    # The second call of a worker's process is checked, too.
    with trialbus.attach(), pytest.raises(trialbus.SpecError, match=message):
        trialbus.attach(**arguments)


def test_defaults_may_hold_what_a_command_line_holds() -> None:
    values = {"out": Path("runs"), "sizes": [1, 2], "make": dict, "seed": None}
    with trialbus.attach(defaults=values) as trial:
        assert dict(trial.params) == values


def attach_with_limit(bus: TestBus, **limits: Any) -> Trial:
    """Return a trial with limits of its attempt."""
    assigned = trialbus.TrialAssigned(study="s", trial=0, request="abc", params={}, **limits)
    link = Link(bus.endpoint)
    presence = Presence(link=link, kind="trainer")
    return Trial(assigned, BusChannel(link, presence, assigned), None, Ranks())


@pytest.mark.parametrize(
    ("limits", "cause", "reason"),
    [
        ({"timeout_s": 0.1}, "timed_out", r"study\.trial_timeout_s=0\.1"),
        ({"silence_s": 0.1}, "silent", r"no report came for study\.silence_s=0\.1"),
        ({"timeout_s": 0.1, "silence_s": 60.0}, "timed_out", "study.trial_timeout_s"),
    ],
    ids=["time", "silence", "both"],
)
def test_a_trial_that_no_worker_ends_fails_at_its_limit_and_its_next_report_stops_it(
    bus: TestBus, limits: dict[str, float], cause: str, reason: str
) -> None:
    with attach_with_limit(bus, **limits) as trial:
        (finished,) = until(lambda: bus.events(trialbus.TrialFinished))
        assert (finished.state, finished.cause) == ("failed", cause)
        with pytest.raises(trialbus.TrialPruned, match=reason):
            trial.report(0, {"loss": 1.0})


def test_a_training_that_leaves_by_sys_exit_fails_with_what_it_called(
    bus: TestBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus.assign(monkeypatch.setenv, params={})
    with pytest.raises(SystemExit), trialbus.attach():
        sys.exit(2)
    (finished,) = until(lambda: bus.events(trialbus.TrialFinished))
    assert (finished.state, finished.cause) == ("failed", "exception")
    assert str(finished.error).splitlines()[-1] == "the training called sys.exit(2)"


def test_an_attempt_is_silent_only_after_it_has_stopped_publishing() -> None:
    counts = itertools.chain(range(20), itertools.repeat(20))
    taken: list[int] = []

    def count_published() -> int:
        taken.append(next(counts))
        return taken[-1]

    expired: list[str] = []
    assigned = trialbus.TrialAssigned(study="s", trial=0, params={}, silence_s=0.05)
    AttemptLimits(assigned, count_published, lambda cause, _: expired.append(cause))
    until(lambda: expired)
    assert expired == ["silent"]
    assert taken.count(20) > 1


def test_the_limits_of_a_trial_are_left_to_its_worker(
    bus: TestBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(GROUP_VARIABLE, "abc")
    with attach_with_limit(bus, timeout_s=0.1, silence_s=0.1):
        assert "trialbus-limits" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.parametrize("given", [True, False], ids=["by-a-worker", "without-a-worker"])
def test_the_attempts_of_a_trial_share_a_folder_for_their_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, given: bool
) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    monkeypatch.delenv(RUN_DIRECTORY_VARIABLE, raising=False)
    if given:
        monkeypatch.setenv(RUN_DIRECTORY_VARIABLE, str(tmp_path / "given"))
    folders = set[Path]()
    for attempt in range(2):
        assigned = trialbus.TrialAssigned(study="digits", trial=3, attempt=attempt, params={})
        trial = Trial(assigned, PrintingChannel(), None, Ranks(is_given=True))
        assert trial.run_dir.is_dir()
        folders.add(trial.run_dir)
    expected = "given" if given else ".trialbus/runs/digits/3"
    assert folders == {tmp_path / expected}
