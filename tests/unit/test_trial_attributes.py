"""Attributes that a training sets on its trial: checked at the call, recorded once, exported."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow.parquet  # pyright: ignore[reportMissingTypeStubs]
import pytest
from optuna.trial import TrialState

import trialbus
from support.simulated_bus import SimulatedBus
from support.studies import make_study, make_trial
from trialbus.messages import events
from trialbus.study.trial_attributes import MAX_ATTRIBUTES, MAX_KEY, MAX_VALUE
from trialbus.testing import TestBus
from trialbus.trainer.channel import PrintingChannel
from trialbus.trainer.distributed import Ranks
from trialbus.trainer.trial import Trial
from trialbus_services.optimizer.attributes import PREFIX
from trialbus_services.reporter.exports import to_csv, to_parquet
from trialbus_services.reporter.snapshot import Snapshot
from trialbus_services.reporter.table import tabulate


@pytest.fixture
def bus() -> Iterator[SimulatedBus]:
    simulated = SimulatedBus()
    yield simulated
    simulated.storage.is_held = False
    simulated.loop.close(20)


@pytest.fixture
def trial() -> Iterator[Trial]:
    assigned = events.TrialAssigned(study="s", trial=7, params={})
    with Trial(assigned, PrintingChannel(), 1, Ranks()) as trial:
        yield trial


def set_attribute(assigned: events.TrialAssigned, key: str, value: Any) -> events.TrialAttributeSet:
    return events.TrialAttributeSet(
        study=assigned.study,
        trial=assigned.trial,
        attempt=assigned.attempt,
        key=key,
        value=value,
    )


def finish(assigned: events.TrialAssigned) -> list[events.TrialEvent]:
    attempt: dict[str, Any] = {
        "study": "s",
        "trial": assigned.trial,
        "attempt": assigned.attempt,
    }
    return [
        events.EvaluationComplete(**attempt, step=0, metrics={"loss": 1.0}),
        events.TrialFinished(**attempt, state="complete"),
    ]


def read_attributes(bus: SimulatedBus, number: int = 0) -> dict[str, Any]:
    """Return the user's own attributes of a trial in the database."""
    assert bus.storage.flush(20)
    attributes = bus.trials()[number].user_attrs
    return {key: value for key, value in attributes.items() if not key.startswith(PREFIX)}


def test_the_handle_publishes_what_json_gives_back(monkeypatch: pytest.MonkeyPatch) -> None:
    values: dict[str, Any] = {
        "n": 3,
        "accuracy": np.float64(0.5),
        "sizes": (1, 2.5, None),
        "nested": {3: [True, "ü"]},
        "infinite": float("inf"),
    }
    with TestBus() as hub:
        hub.assign(monkeypatch.setenv, params={}, trial=4, attempt=2)
        with trialbus.attach() as trial:
            trial.report(0, {"loss": 1.0})
            for key, value in values.items():
                trial.set_user_attr(key, value)
        published = hub.events(events.TrialAttributeSet)
    assert {event.key: event.value for event in published} == {
        "n": 3,
        "accuracy": 0.5,
        "sizes": [1, 2.5, None],
        "nested": {"3": [True, "ü"]},
        "infinite": float("inf"),
    }
    assert {(event.trial, event.attempt) for event in published} == {(4, 2)}


@pytest.mark.parametrize(
    ("key", "value", "error", "message"),
    [
        (3, 1, TypeError, "the key of an attribute is 3, expected text"),
        ("", 1, ValueError, "the key of an attribute is empty"),
        ("k" * (MAX_KEY + 1), 1, ValueError, f"has {MAX_KEY + 1} characters, expected at most 512"),
        ("a\0", 1, ValueError, "NUL character"),
        ("trialbus:metrics", {}, ValueError, "'trialbus:metrics' begins with 'trialbus:'"),
        ("size", {1, 2}, TypeError, r"'size' is \{1, 2\}, expected what JSON can hold"),
        ("size", b"x", TypeError, "expected what JSON can hold"),
        ("size", 2**64, ValueError, "'size' is 18446744073709551616 .expected an integer of 64 bi"),
        ("size", ["\ud800"], ValueError, r"'size'\[0\] .* has the surrogate"),
        ("size", "x" * MAX_VALUE, ValueError, "takes 65537 bytes of JSON, expected at most 65535"),
        ("size", json.loads("[" * 90 + "]" * 90), ValueError, "more than 64 levels"),
    ],
    ids=[
        "number as key",
        "empty key",
        "long key",
        "NUL in key",
        "reserved key",
        "set",
        "bytes",
        "large integer",
        "surrogate",
        "long value",
        "deep value",
    ],
)
def test_what_no_storage_can_hold_is_refused_at_the_call(
    trial: Trial, key: Any, value: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        trial.set_user_attr(key, value)


def test_a_list_that_contains_itself_is_refused_at_the_call(trial: Trial) -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(ValueError, match="expected fewer levels"):
        trial.set_user_attr("endless", endless)


def test_the_longest_key_and_value_are_accepted_and_the_number_of_keys_is_bounded(
    trial: Trial,
) -> None:
    trial.set_user_attr("k" * MAX_KEY, "x" * (MAX_VALUE - 2))
    for i in range(MAX_ATTRIBUTES - 1):
        trial.set_user_attr(f"key {i}", i)
    trial.set_user_attr("key 3", "again")
    with pytest.raises(ValueError, match="the trial has 1000 attributes"):
        trial.set_user_attr("one more", 1)


@pytest.mark.parametrize("key", ["loss", "LOSS ", "löss"])
def test_a_key_that_a_database_takes_for_another_is_refused(trial: Trial, key: str) -> None:
    trial.set_user_attr("Loss", 1)
    with pytest.raises(ValueError, match="differs from the key 'Loss' in case, accents or spaces"):
        trial.set_user_attr(key, 2)
    trial.set_user_attr("Loss", 3)


def test_an_attribute_is_recorded_as_the_optuna_trial_s_own(bus: SimulatedBus) -> None:
    bus.submit()
    assigned = bus.request()
    bus.turn(
        set_attribute(assigned, "size", 1),
        set_attribute(assigned, "size", [2, {"a": None}]),
        *finish(assigned),
    )
    assert read_attributes(bus) == {"size": [2, {"a": None}]}
    assert bus.trials()[0].state is TrialState.COMPLETE


def test_an_attribute_counts_once_and_before_the_end_whatever_is_read_again(
    bus: SimulatedBus,
) -> None:
    bus.submit()
    assigned = bus.request()
    bus.storage.flush(20)
    bus.turn()
    bus.storage.is_held = True
    bus.turn(set_attribute(assigned, "size", 1), *finish(assigned))
    bus.turn(set_attribute(assigned, "size", "too late"))
    bus.start()  # killed before anything of this was recorded
    bus.turn()
    assert read_attributes(bus) == {"size": 1}
    bus.log.committed = 0
    bus.start()  # reads everything again
    bus.turn()
    assert read_attributes(bus) == {"size": 1}


def test_the_next_attempt_keeps_what_it_does_not_set_and_a_given_up_attempt_sets_nothing(
    bus: SimulatedBus,
) -> None:
    bus.submit(max_retries=1)
    first = bus.request("r1")
    bus.turn(set_attribute(first, "host", "a"), set_attribute(first, "size", 1))
    bus.turn(events.TrainerLost(session="w", kind="worker"))
    second = bus.request("r2", session="another")
    assert (second.trial, second.attempt) == (first.trial, 1)
    bus.turn(set_attribute(second, "host", "b"), set_attribute(first, "host", "late"))
    bus.turn(*finish(second))
    assert read_attributes(bus) == {"host": "b", "size": 1}
    assert bus.loop.get_status().refused == {"its trial, or this attempt of it, does not run": 1}


@pytest.mark.parametrize(
    ("key", "value"),
    [("trialbus:request", "x"), ("", 1), ("a", "x" * 70_000), ("a", b"bytes"), ("KNOWN", 1)],
    ids=["reserved key", "empty key", "long value", "bytes", "another case"],
)
def test_an_attribute_of_another_client_is_checked_by_the_optimizer_as_well(
    bus: SimulatedBus, key: str, value: Any
) -> None:
    bus.submit()
    assigned = bus.request()
    bus.turn(set_attribute(assigned, "known", 0))
    before = bus.trials()[0].user_attrs
    bus.turn(set_attribute(assigned, key, value), *finish(assigned))
    assert bus.loop.get_status().refused == {"its attribute": 1}
    assert read_attributes(bus) == {"known": 0}
    assert bus.trials()[0].user_attrs.items() >= before.items()


def test_attributes_are_columns_of_the_exports_and_never_hide_another_column() -> None:
    attributes: list[dict[str, Any]] = [
        {"size": 3, "x": 7, "shape": [1, 2], "seconds": "s", "mixed": {"a": 1}},
        {"size": 4, "mixed": [1, "b"], "trialbus:slot": 2},
    ]
    study = make_study(*(make_trial(i, user_attrs=a) for i, a in enumerate(attributes)))
    table = tabulate(Snapshot(study))
    new = ["size", "user_attrs.x", "shape", "user_attrs.seconds", "mixed"]
    assert table.header[-5:] == new
    rows = to_csv(table).splitlines()
    assert rows[1].endswith('3,7,"[1, 2]","s","{""a"": 1}"')
    parquet: Any = pyarrow.parquet
    read = parquet.read_table(io.BytesIO(to_parquet(table))).to_pydict()
    assert [read[name][0] for name in new[:4]] == [3, 7, [1, 2], "s"]
    assert [json.loads(text) for text in read["mixed"]] == [{"a": 1}, [1, "b"]]
