"""Studies that are recorded behind the optimizer equal studies that plain Optuna writes."""

from __future__ import annotations

import math
import random
import threading
import time

import optuna
import pytest
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage, RDBStorage
from optuna.study import StudyDirection
from optuna.trial import TrialState

from support.databases import ALL, SQL, Databases, reopen
from support.random_study import (
    DISTRIBUTIONS,
    Direction,
    list_rows,
    list_trials,
    open_study,
    play_actions,
)
from support.until import until
from trialbus_services.optimizer.attributes import THINNED, VOID
from trialbus_services.optimizer.storage_writer.write_behind import WriteBehind

DIRECTIONS: list[list[Direction]] = [["minimize"], ["minimize", "maximize"]]
MINIMIZE = [StudyDirection.MINIMIZE]
# Only flush() writes, so that the tests decide when.
NEVER_S = 1e6


def rdb(storage: BaseStorage) -> RDBStorage:
    backend = getattr(storage, "_backend", storage)
    assert isinstance(backend, RDBStorage)
    return backend


def read_trial(storage: BaseStorage, name: str, number: int) -> optuna.trial.FrozenTrial:
    return storage.get_all_trials(storage.get_study_id_from_name(name))[number]


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("directions", DIRECTIONS, ids=["single", "multi"])
def test_a_recorded_study_equals_a_study_of_plain_optuna(
    databases: Databases, directions: list[Direction]
) -> None:
    url = databases.new()
    plain, backend = databases.open(databases.new()), databases.open(url)
    behind = WriteBehind(backend, interval_s=NEVER_S)
    play_actions(open_study(plain, "s", directions, 0), 0, n_actions=60)
    play_actions(open_study(behind, "s", directions, 0), 0, behind.flush, n_actions=60)
    assert list_trials(behind, "s") == list_trials(plain, "s")
    behind.close()
    assert behind.n_pending == 0
    assert list_trials(reopen(databases, url, backend), "s") == list_trials(plain, "s")
    if databases.kind in SQL:
        assert list_rows(rdb(backend).engine) == list_rows(rdb(plain).engine)


@pytest.mark.parametrize("kind", ALL)
def test_loaded_trials_are_those_that_optuna_reads(databases: Databases) -> None:
    backend = databases.open(databases.new())
    for seed, directions in enumerate(DIRECTIONS):
        play_actions(open_study(backend, f"s{seed}", directions, seed), seed)
    behind = WriteBehind(backend)
    for seed in range(len(DIRECTIONS)):
        study_id = behind.load_or_create_study(f"s{seed}", MINIMIZE)
        recorded_id = backend.get_study_id_from_name(f"s{seed}")
        assert behind.get_study_directions(study_id) == backend.get_study_directions(recorded_id)
        assert repr(behind.get_study_user_attrs(study_id)) == repr(
            backend.get_study_user_attrs(recorded_id)
        )
        assert list_trials(behind, f"s{seed}", times=True) == list_trials(
            backend, f"s{seed}", times=True
        )
    assert behind.get_best_trial(behind.load_or_create_study("s0", [])).value == (
        backend.get_best_trial(backend.get_study_id_from_name("s0")).value
    )
    behind.close()


@pytest.mark.parametrize("kind", ALL)
def test_plain_optuna_and_write_behind_continue_each_other(databases: Databases) -> None:
    plain, url = databases.open(databases.new()), databases.new()
    backend = databases.open(url)
    for turn in range(3):
        play_actions(open_study(plain, "s", ["maximize"], turn), turn, n_actions=20)
        if turn == 1:
            behind = WriteBehind(databases.open(url) if databases.kind != "memory" else backend)
            play_actions(
                open_study(behind, "s", ["maximize"], turn), turn, behind.flush, n_actions=20
            )
            behind.close()
        else:
            play_actions(open_study(backend, "s", ["maximize"], turn), turn, n_actions=20)
    again = reopen(databases, url, backend)
    assert list_trials(again, "s") == list_trials(plain, "s")
    if databases.kind in SQL:
        assert list_rows(rdb(backend).engine) == list_rows(rdb(plain).engine)


@pytest.mark.parametrize("kind", SQL)
def test_changes_that_are_repeated_after_loading_change_nothing(databases: Databases) -> None:
    backend = databases.open(databases.new())
    before: dict[str, list[str]] = {}
    for _ in range(2):
        behind = WriteBehind(backend, interval_s=NEVER_S)
        study_id = behind.load_or_create_study("s", MINIMIZE)
        if not behind.get_all_trials(study_id):
            behind.create_new_trial(study_id)
        trial_id = behind.get_trial_id_from_study_id_trial_number(study_id, 0)
        for name, distribution in DISTRIBUTIONS.items():
            behind.set_trial_param(trial_id, name, 1.0, distribution)
        for step in range(5):
            behind.set_trial_intermediate_value(trial_id, step, step / 2)
        behind.set_trial_user_attr(trial_id, "key", "value")
        behind.set_study_user_attr(study_id, "key", "value")
        behind.close()
        after = list_rows(rdb(backend).engine)
        assert before in ({}, after)
        before = after


@pytest.mark.parametrize("kind", ["sqlite", "journal"])
def test_readers_see_curves_grow(databases: Databases) -> None:
    url = databases.new()
    behind = WriteBehind(databases.open(url), interval_s=0.01)
    study = open_study(behind, "s", ["minimize"], 0)
    open_trials = [study.ask(DISTRIBUTIONS) for _ in range(3)]
    reader = optuna.load_study(study_name="s", storage=databases.open(url))
    for step in range(4):
        for trial in open_trials:
            trial.report(step, step)
        mark = behind.mark()
        until(lambda mark=mark: behind.is_recorded(mark), describe="the record")
        for trial in reader.get_trials():
            assert trial.state == TrialState.RUNNING
            assert list(trial.intermediate_values) == list(range(step + 1))
            assert list(trial.params) == list(DISTRIBUTIONS)
    behind.close()


@pytest.mark.parametrize("kind", ["sqlite"])
def test_a_reader_never_sees_half_of_an_ask(databases: Databases) -> None:
    url = databases.new()
    behind = WriteBehind(databases.open(url), interval_s=0.01)
    study = open_study(behind, "s", ["minimize"], 0)
    first = study.ask()
    reader = optuna.load_study(study_name="s", storage=databases.open(url))
    first.report(1, 0)
    before = behind.mark()
    with behind.atomic():
        second = study.ask()
        second.suggest_float("x", 0, 1)
        until(lambda: behind.is_recorded(before), describe="the changes before")
        waiting = threading.Thread(target=behind.flush)
        waiting.start()
        assert not behind.is_recorded(behind.mark())
        assert len(reader.get_trials()) == 1
        second.suggest_float("y", 0, 1)
        with pytest.raises(RuntimeError, match=r"inside atomic\(\)"):
            behind.flush()
    waiting.join()
    assert [list(trial.params) for trial in reader.get_trials()] == [[], ["x", "y"]]
    behind.close()


@pytest.mark.parametrize("kind", ["sqlite"])
def test_changes_of_a_returned_trial_are_not_recorded(databases: Databases) -> None:
    backend = databases.open(databases.new())
    behind = WriteBehind(backend, interval_s=NEVER_S)
    trial = open_study(behind, "s", ["minimize"], 0).ask({"float": DISTRIBUTIONS["float"]})
    attribute = ["as it was"]
    trial.set_user_attr("mine", attribute)
    attribute.append("changed later")
    returned = behind.get_trial(0)
    expected = dict(returned.params)
    returned.params["foreign"] = 1
    returned.distributions["foreign"] = DISTRIBUTIONS["int"]
    returned.user_attrs["foreign"] = 1
    behind.close()
    trial = read_trial(backend, "s", 0)
    assert trial.params == expected
    assert trial.user_attrs == {"mine": ["as it was"]}


@pytest.mark.parametrize("kind", SQL)
def test_times_are_recorded_as_optuna_records_them(
    databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    time.tzset()
    try:
        backend = databases.open(databases.new())
        behind = WriteBehind(backend, interval_s=NEVER_S)
        study = open_study(behind, "s", ["minimize"], 0)
        study.tell(study.ask(), 1.0)
        behind.close()
        in_memory, recorded = behind.get_trial(0), read_trial(backend, "s", 0)
        assert in_memory.datetime_start
        assert recorded.datetime_start
        assert in_memory.datetime_complete
        assert recorded.datetime_complete
        # MySQL keeps whole seconds.
        assert abs((in_memory.datetime_start - recorded.datetime_start).total_seconds()) <= 1
        assert abs((in_memory.datetime_complete - recorded.datetime_complete).total_seconds()) <= 1
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("kind", ["sqlite"])
def test_a_report_copies_no_curve(databases: Databases) -> None:
    behind = WriteBehind(databases.open(databases.new()), interval_s=NEVER_S)
    trial_id = behind.create_new_trial(behind.load_or_create_study("s", MINIMIZE))
    before = behind.get_trial(trial_id).intermediate_values
    behind.set_trial_intermediate_value(trial_id, 0, 1.0)
    assert behind.get_trial(trial_id).intermediate_values is before
    behind.set_trial_state_values(trial_id, TrialState.COMPLETE, [1.0])
    with pytest.raises(UpdateFinishedTrialError):
        behind.set_trial_intermediate_value(trial_id, 1, 1.0)
    behind.close()


@pytest.mark.parametrize("kind", ["sqlite"])
def test_attributes_of_a_trial_that_ended_can_be_amended(databases: Databases) -> None:
    backend = databases.open(databases.new())
    behind = WriteBehind(backend, interval_s=NEVER_S)
    study = open_study(behind, "s", ["minimize"], 0)
    study.tell(study.ask(), 1.0)
    behind.flush()
    with pytest.raises(UpdateFinishedTrialError):
        behind.set_trial_user_attr(0, "late", 1)
    behind.amend_trial_user_attr(0, "late", 1)
    behind.amend_trial_system_attr(0, "later", 2)
    behind.close()
    trial = read_trial(backend, "s", 0)
    assert (trial.user_attrs, trial.system_attrs) == ({"late": 1}, {"later": 2})
    assert list_trials(behind, "s") == list_trials(backend, "s")


@pytest.mark.parametrize("kind", ["sqlite"])
@pytest.mark.parametrize("stride", [1, 3])
def test_a_long_curve_is_recorded_in_part(databases: Databases, stride: int) -> None:
    backend = databases.open(databases.new())
    chance = random.Random(0)
    steps = list(range(1, 300 * stride, stride))
    reported: list[int] = []
    for part in (steps[:150], steps[150:]):
        # A restart in the middle.
        behind = WriteBehind(backend, interval_s=NEVER_S, max_points=16)
        study_id = behind.load_or_create_study("s", MINIMIZE)
        if not reported:
            behind.create_new_trial(study_id)
        for step in part:
            behind.set_trial_intermediate_value(0, step, step / 2)
            reported.append(step)
            if chance.random() < 0.1:
                behind.flush()
                curve = read_trial(backend, "s", 0).intermediate_values
                assert len(curve) <= 17
                assert {1, step} <= curve.keys()
                assert all(value == step / 2 for step, value in curve.items())
        if part is steps[150:]:
            behind.set_trial_state_values(0, TrialState.COMPLETE, [1.0])
        behind.close()
    trial = read_trial(backend, "s", 0)
    gap = trial.user_attrs[THINNED]
    assert gap == 32 if stride == 1 else gap >= 32
    assert sorted(trial.intermediate_values) == [
        step for step in steps if (step - 1) % gap == 0 or step == steps[-1]
    ]
    assert set(behind.get_trial(0).intermediate_values) >= set(steps[150:])


@pytest.mark.parametrize("kind", [*SQL, "journal"])
def test_values_that_a_new_attempt_does_not_take_over_are_not_loaded_again(
    databases: Databases,
) -> None:
    backend = databases.open(databases.new())
    behind = WriteBehind(backend, interval_s=None, max_points=16)
    trial_id = behind.create_new_trial(behind.load_or_create_study("s", MINIMIZE))
    for is_written in (True, False):
        for step in range(8):
            behind.set_trial_intermediate_value(trial_id, step, 1.0)
        behind.set_trial_system_attr(trial_id, "completed_rung_0", 1.0)
        assert not is_written or behind.flush()
        behind.drop_trial_intermediate_values(trial_id, 3)
        behind.drop_trial_system_attr(trial_id, "completed_rung_0")
        behind.set_trial_intermediate_value(trial_id, 3, 0.5)
        assert behind.flush()
        loaded = WriteBehind(backend, interval_s=None)
        loaded.load_or_create_study("s", MINIMIZE)
        expected = {0: 1.0, 1: 1.0, 2: 1.0, 3: 0.5}
        assert behind.get_trial(trial_id).intermediate_values == expected
        assert loaded.get_trial(0).intermediate_values == expected
        recorded = read_trial(backend, "s", 0)
        if databases.kind == "journal":
            assert recorded.user_attrs[VOID] == [4, 5, 6, 7]
            assert all(math.isnan(recorded.intermediate_values[step]) for step in range(4, 8))
        else:
            assert recorded.intermediate_values == expected
            assert recorded.system_attrs == {}


@pytest.mark.parametrize("kind", ALL)
def test_a_released_study_is_written_and_can_be_loaded_again(databases: Databases) -> None:
    url = databases.new()
    backend = databases.open(url)
    behind = WriteBehind(backend, interval_s=NEVER_S)
    play_actions(open_study(behind, "other", ["minimize"], 1), 1)
    play_actions(open_study(behind, "s", ["minimize"], 0), 0)
    expected, other = list_trials(behind, "s"), list_trials(behind, "other")
    behind.release(behind.load_or_create_study("s", MINIMIZE))
    assert [study.study_name for study in behind.get_all_studies()] == ["other"]
    assert list_trials(behind, "s") == expected
    assert list_trials(behind, "other") == other
    play_actions(open_study(behind, "s", ["minimize"], 2), 2)
    expected = list_trials(behind, "s")
    optuna.delete_study(study_name="other", storage=behind)
    behind.close()
    assert list_trials(backend, "s") == expected
    with pytest.raises(KeyError):
        backend.get_study_id_from_name("other")
