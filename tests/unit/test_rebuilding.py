"""A study whose storage was lost is rebuilt from the log, or the reason why not is said."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import IntDistribution
from optuna.trial import FrozenTrial, TrialState

from support.simulated_bus import Sampler, SimulatedBus
from trialbus import FloatParam, IntParam
from trialbus.messages import events
from trialbus_services.optimizer.sampling.messages import Suggestion
from trialbus_services.optimizer.storage_writer.writer import StorageLostError


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[SimulatedBus]:
    simulated = SimulatedBus(open_database(tmp_path, "first"))
    yield simulated
    simulated.storage.is_held = False
    simulated.loop.close(20)


def open_database(folder: Path, name: str) -> optuna.storages.RDBStorage:
    return optuna.storages.RDBStorage(f"sqlite:///{folder}/{name}.db")


def about(assigned: events.TrialAssigned) -> dict[str, Any]:
    return {"study": "s", "trial": assigned.trial, "attempt": assigned.attempt}


def evaluate(assigned: events.TrialAssigned, *losses: float, first: int = 0) -> list[events.Event]:
    return [
        events.EvaluationComplete(**about(assigned), step=step, metrics={"loss": loss, "other": 2})
        for step, loss in enumerate(losses, first)
    ]


def finish(assigned: events.TrialAssigned, state: Any = "complete") -> events.TrialFinished:
    return events.TrialFinished(**about(assigned), state=state, error="oops")


def run_varied_trials(bus: SimulatedBus) -> None:
    """Run trials of every kind of end, with retries, attributes, and one that still runs."""
    bus.turn(*evaluate(first := bus.request("r0"), 3.0, 2.0), finish(first))
    bus.turn(*evaluate(pruned := bus.request("r1"), 11.0), finish(pruned, "pruned"))
    bus.turn(*evaluate(failed := bus.request("r2"), 4.0), finish(failed, "failed"))
    bus.turn(*evaluate(lost := bus.request("r3"), 5.0, 6.0))
    bus.turn(events.TrainerLost(session="w", kind="worker"))
    again = bus.request("r4", session="v")
    assert (again.trial, again.attempt) == (lost.trial, 1)
    bus.turn(
        *evaluate(again, 7.0, first=1),
        events.TrialAttributeSet(**about(again), key="size", value=[1, None]),
        events.ArtifactLogged(
            **about(again), artifact="id", filename="a.png", mimetype="image/png"
        ),
        finish(again),
    )
    bus.turn(events.Enqueue(study="s", enqueue="e", params={"x": 0.25}, by="ada"))
    bus.turn(*evaluate(bus.request("r5", session="v"), 1.0))
    assert bus.storage.flush(20)


def turn_until_lost(bus: SimulatedBus) -> None:
    """Let the loop turn until it raises an error."""
    for _ in range(10):
        bus.loop.turn()
        bus.clock.now += 1.0
        assert bus.storage.flush(20)


def describe(trial: FrozenTrial) -> dict[str, Any]:
    """Return what a loss of the storage does not change about a trial."""
    return {
        "number": trial.number,
        "state": trial.state,
        "params": trial.params,
        "distributions": trial.distributions,
        "values": trial.values,
        "curve": trial.intermediate_values,
        "user_attrs": trial.user_attrs,
        "system_attrs": trial.system_attrs,
    }


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 1.0])
def test_a_study_whose_database_is_gone_at_a_restart_is_rebuilt_as_it_was(
    bus: SimulatedBus, tmp_path: Path, share: float
) -> None:
    bus.submit(n_trials=8, max_retries=1)
    run_varied_trials(bus)
    before = bus.trials()
    assert {trial.state for trial in before} >= {
        TrialState.COMPLETE,
        TrialState.PRUNED,
        TrialState.FAIL,
        TrialState.RUNNING,
    }
    published = bus.log.end
    bus.log.committed = int(share * bus.log.end)
    bus.database = open_database(tmp_path, "second")
    bus.start()
    bus.turn()
    after = bus.trials()
    assert list(map(describe, after)) == list(map(describe, before))
    if share == 1:
        assert bus.log.end == published, "what the log tells already is not published again"
        for trial, earlier in zip(after, before, strict=True):
            if trial.datetime_complete and earlier.datetime_complete:
                apart = trial.datetime_complete - earlier.datetime_complete
                assert abs(apart.total_seconds()) < 0.2
    running = bus.log.select(events.TrialAssigned)[-1]
    bus.turn(finish(running))
    assert bus.trials()[running.trial].state is TrialState.COMPLETE
    assert bus.request("r6", session="v").trial == len(before)


def test_a_database_that_is_removed_while_the_study_runs_is_rebuilt(
    bus: SimulatedBus, tmp_path: Path
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    bus.database = open_database(folder, "studies")
    bus.start()
    bus.submit()
    first = bus.request()
    bus.turn(*evaluate(first, 1.0), finish(first))
    second = bus.request("r2")
    before = bus.trials()
    shutil.rmtree(folder)
    committed, published = bus.log.committed, bus.log.end
    bus.log.append(*evaluate(second, 2.0), finish(second))
    with pytest.raises(StorageLostError, match="was removed while the study ran"):
        turn_until_lost(bus)
    assert (bus.log.committed, bus.log.end) == (committed, published + 2)
    folder.mkdir()
    bus.database = open_database(folder, "studies")
    bus.start()
    bus.turn()
    trials = bus.trials()
    assert describe(trials[0]) == describe(before[0])
    assert [(trial.state, trial.value) for trial in trials] == [
        (TrialState.COMPLETE, 1.0),
        (TrialState.COMPLETE, 2.0),
    ]
    third = bus.request("r3")
    bus.turn(*evaluate(third, 0.5), finish(third))
    [end] = bus.log.select(events.StudyFinished)
    assert (end.reason, end.counts.complete, end.best_trials[0].number) == ("exhausted", 3, 2)


def test_a_study_of_which_the_log_has_only_the_end_fails_with_the_reason_and_begins_anew(
    bus: SimulatedBus, tmp_path: Path
) -> None:
    bus.submit(n_trials=2)
    for request in ("r0", "r1"):
        assigned = bus.request(request)
        bus.turn(*evaluate(assigned, 1.0), finish(assigned))
    bus.turn()
    end_of_first = bus.log.end
    bus.submit(n_trials=4)
    bus.request("r2")
    assert bus.storage.flush(20)
    bus.log.forget((events.TrialAssigned,), end_of_first)
    bus.database = open_database(tmp_path, "second")
    bus.start()
    bus.turn()
    end = bus.log.select(events.StudyFinished)[-1]
    assert end.reason == "failed"
    assert "the storage has lost trials of the study, and the log cannot restore them" in str(
        end.error
    )
    bus.submit(n_trials=4)
    assert bus.request("r3", session="v").trial == 0


@pytest.mark.parametrize("is_behind", [False, True], ids=["committed", "not committed"])
def test_a_finished_study_whose_database_is_gone_begins_anew_when_it_is_submitted_again(
    bus: SimulatedBus, tmp_path: Path, *, is_behind: bool
) -> None:
    bus.submit(n_trials=2)
    for request in ("r0", "r1"):
        assigned = bus.request(request)
        committed = bus.log.committed
        bus.turn(*evaluate(assigned, 1.0), finish(assigned))
    bus.turn()
    assert bus.find_end() == "exhausted"
    if is_behind:
        bus.log.committed = committed
    bus.database = open_database(tmp_path, "second")
    bus.start()
    bus.turn()
    bus.submit(n_trials=2, submission="2")
    assert bus.request("r2").trial == 0
    bus.start()  # what the log had of the study before is not looked for
    bus.turn()
    assert bus.request("r3").trial == 1
    assert len(bus.trials()) == 2


class NoParams(Sampler):
    """A sampler of a study whose training asks for its params."""

    def take_suggestion(self) -> Suggestion | None:
        suggestion = super().take_suggestion()
        return suggestion and replace(suggestion, params={}, distributions={})


def test_the_params_that_a_training_asked_for_are_rebuilt(tmp_path: Path) -> None:
    bus = SimulatedBus(open_database(tmp_path, "first"), start_sampler=NoParams)
    bus.submit(params={}, define_by_run=True)
    assigned = bus.request()
    lr, depth = FloatParam(low=0, high=1, log=False), IntParam(low=1, high=8)
    asked = [
        events.ParamRequested(**about(assigned), name="lr", param=lr),
        events.ParamRequested(**about(assigned), name="depth", param=depth, answer=False, value=3),
    ]
    answer = events.ParamSuggested(**about(assigned), name="lr", value=0.125)
    bus.turn(asked[1])
    bus.log.append(asked[0], answer)
    bus.log.append(*evaluate(assigned, 1.0), finish(assigned))
    bus.log.committed = bus.log.end
    bus.database = open_database(tmp_path, "second")
    bus.start()
    bus.turn()
    [trial] = bus.trials()
    assert trial.params == {"lr": 0.125, "depth": 3}
    assert trial.distributions["depth"] == IntDistribution(1, 8)
    assert (trial.state, trial.value) == (TrialState.COMPLETE, 1.0)


def test_an_older_copy_of_the_database_gets_what_it_lacks(
    bus: SimulatedBus, tmp_path: Path
) -> None:
    bus.submit(n_trials=8, max_retries=1)
    bus.turn(*evaluate(early := bus.request("early"), 3.0))
    assert bus.storage.flush(20)
    source, copy = (sqlite3.connect(tmp_path / f"{name}.db") for name in ("first", "second"))
    with closing(source), closing(copy):
        source.backup(copy)
    bus.turn(*evaluate(early, 2.0, first=1), finish(early))
    run_varied_trials(bus)
    before = bus.trials()
    bus.log.committed = bus.log.end
    bus.database = open_database(tmp_path, "second")
    bus.start()
    bus.turn()
    assert list(map(describe, bus.trials())) == list(map(describe, before))


def test_a_trial_that_the_log_does_not_describe_is_named(bus: SimulatedBus, tmp_path: Path) -> None:
    bus.submit()
    optuna.load_study(study_name="s", storage=bus.database).add_trial(
        optuna.trial.create_trial(value=1.0)
    )
    bus.turn(events.TrialRequested(study="s", request="r0", session="w"))
    bus.turn()
    assert [assigned.trial for assigned in bus.log.select(events.TrialAssigned)] == [1]
    assert bus.storage.flush(20)
    bus.log.committed = bus.log.end
    bus.database = open_database(tmp_path, "second")
    bus.start()
    bus.turn()
    [end] = bus.log.select(events.StudyFinished)
    assert end.reason == "failed"
    assert "the log cannot restore them: it has no trial 0, and 1 after it" in str(end.error)
