"""Steps and metrics that a trainer may report."""

from __future__ import annotations

import math
from typing import Any

import pytest

import trialbus
from trialbus.callbacks import Callbacks
from trialbus.trainer.channel import SilentChannel
from trialbus.trainer.distributed import Ranks
from trialbus.trainer.metrics import flatten_metrics
from trialbus.trainer.trial import Trial

np = pytest.importorskip("numpy")
torch = pytest.importorskip("torch")


def test_numbers_of_every_kind_become_floats() -> None:
    flat = flatten_metrics(
        {"a": 1, "b": True, "c": np.float32(0.5), "d": torch.tensor(2.0), "e": np.array(3)}
    )
    assert flat == {"a": 1.0, "b": 1.0, "c": 0.5, "d": 2.0, "e": 3.0}
    assert {type(value) for value in flat.values()} == {float}


def test_nested_metrics_are_joined() -> None:
    assert flatten_metrics({"val": {"accuracy": 0.9, "per": {"class": 1}}}) == {
        "val/accuracy": 0.9,
        "val/per/class": 1.0,
    }


def test_nan_and_infinities_are_kept() -> None:
    flat = flatten_metrics({"a": math.nan, "b": -math.inf})
    assert math.isnan(flat["a"])
    assert flat["b"] == -math.inf


@pytest.mark.parametrize(
    "value",
    ["0.9", None, [1.0], np.zeros(3), np.zeros((1,)), torch.zeros(2), b"1", object()],
    ids=["text", "None", "list", "vector", "one in a row", "tensor", "bytes", "object"],
)
def test_a_metric_that_is_not_one_number_is_refused_by_its_key(value: Any) -> None:
    with pytest.raises(TypeError, match=r"metric 'val/accuracy' is .*, expected one number"):
        flatten_metrics({"val": {"accuracy": value}})


@pytest.mark.parametrize(
    ("metrics", "error", "message"),
    [
        ({"": 1.0}, ValueError, r"a name in metrics is empty, expected the name of a metric"),
        ({"val": {"": 1.0}}, ValueError, r"a name below 'val' is empty, expected the name"),
        ({3: 1.0}, TypeError, r"the name 3 in metrics is not text, expected the name of a metric"),
        ({None: 1.0}, TypeError, r"the name None in metrics is not text"),
        ({"val": {0: 1.0}}, TypeError, r"the name 0 below 'val' is not text"),
    ],
    ids=repr,
)
def test_a_metric_without_a_name_is_refused(
    metrics: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        flatten_metrics(metrics)


def test_a_subclass_of_text_names_a_metric() -> None:
    assert flatten_metrics({np.str_("loss"): 1.0}) == {"loss": 1.0}


@pytest.mark.parametrize("value", [10**400, -(10**5000)], ids=["large", "too long to print"])
def test_an_integer_beyond_the_range_of_a_float_is_refused_by_its_key(value: int) -> None:
    with pytest.raises(ValueError, match=r"metric 'val/loss' is an integer beyond the range"):
        flatten_metrics({"val": {"loss": value}})
    with make_trial(KeepingChannel()) as trial:
        for objective in (value, [1.0, value]):
            with pytest.raises(ValueError, match=r"the objective is an integer beyond the range"):
                trial.complete(objective)


class KeepingChannel(SilentChannel):
    """A channel that keeps the events of a trial in a list."""

    def __init__(self) -> None:
        self.events: list[trialbus.Event] = []

    def publish(self, event: trialbus.Event, *, at_once: bool = True) -> None:
        self.events.append(event)


def make_trial(channel: KeepingChannel) -> Trial:
    return Trial(trialbus.TrialAssigned(trial=0, params={}), channel, None, Ranks())


@pytest.mark.parametrize(
    ("step", "error", "message"),
    [
        ("x", TypeError, r"step is 'x', expected an integer from 0 to 2147483647"),
        (1.5, TypeError, r"step is 1.5, expected an integer from 0"),
        (None, TypeError, r"step is None, expected an integer from 0"),
        (np.zeros(2), TypeError, r"step is array\(\[0., 0.\]\), expected an integer from 0"),
        (-1, ValueError, r"step is -1, expected an integer from 0 to 2147483647"),
        (2**31, ValueError, r"step is 2147483648, expected an integer from 0 to 2147483647"),
    ],
    ids=repr,
)
def test_a_wrong_step_is_refused_where_it_is_reported(
    step: Any, error: type[Exception], message: str
) -> None:
    channel = KeepingChannel()
    with make_trial(channel) as trial:
        for report in (trial.report, Callbacks(trial=trial).report):
            with pytest.raises(error, match=message):
                report(step, {"loss": 1.0})
    assert not any(isinstance(event, trialbus.EvaluationComplete) for event in channel.events)


@pytest.mark.parametrize(
    ("metrics", "error", "message"),
    [
        (5, TypeError, r"metrics is 5, expected a mapping of names to numbers"),
        (None, TypeError, r"metrics is None, expected a mapping of names to numbers"),
        ([("loss", 1.0)], TypeError, r"metrics is \[\('loss', 1.0\)\], expected a mapping"),
        ({}, ValueError, r"metrics is \{\}, expected one number or more"),
        ({"val": {}}, ValueError, r"metrics is \{'val': \{\}\}, expected one number or more"),
    ],
    ids=repr,
)
def test_metrics_without_a_number_are_refused_where_they_are_reported(
    metrics: Any, error: type[Exception], message: str
) -> None:
    channel = KeepingChannel()
    with make_trial(channel) as trial:
        for report in (trial.report, Callbacks(trial=trial).report):
            with pytest.raises(error, match=message):
                report(0, metrics)
    assert not any(isinstance(event, trialbus.EvaluationComplete) for event in channel.events)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.5, 0), r"step is 0.5, expected an integer"),
        ((0, 0.5), r"metrics is 0.5, expected a mapping"),
        (({"loss": 0.5},), r"step is \{'loss': 0.5\}, expected an integer"),
        (({"loss": 0.5}, 3), r"step is \{'loss': 0.5\}, expected an integer"),
        ((3,), r"metrics is missing"),
    ],
    ids=repr,
)
def test_a_report_called_the_wrong_way_round_says_what_to_write(
    arguments: tuple[Any, ...], message: str
) -> None:
    expected = message + r'.*; write report\(3, \{"loss": 0.5\}\): the step first, then the metrics'
    with make_trial(KeepingChannel()) as trial:
        for report in (trial.report, Callbacks(trial=trial).report):
            with pytest.raises(TypeError, match=expected):
                report(*arguments)


@pytest.mark.parametrize("step", [3, True, np.int64(3), np.uint8(3), np.array(3), torch.tensor(3)])
def test_an_integer_of_any_library_is_a_step(step: Any) -> None:
    channel = KeepingChannel()
    with make_trial(channel) as trial:
        trial.report(step, {"loss": 1.0})
    (event,) = [e for e in channel.events if isinstance(e, trialbus.EvaluationComplete)]
    assert (event.step, type(event.step)) == (int(step), int)


def test_more_metrics_than_an_optimizer_applies_are_refused_where_they_are_reported() -> None:
    channel = KeepingChannel()
    metrics = {f"m{i}": 1.0 for i in range(1001)}
    with make_trial(channel) as trial:
        with pytest.raises(ValueError, match="metrics has 1001 numbers, expected at most 1000"):
            trial.report(0, metrics)
        del metrics["m0"]
        trial.report(0, metrics)
    (event,) = [e for e in channel.events if isinstance(e, trialbus.EvaluationComplete)]
    assert event.metrics == metrics
