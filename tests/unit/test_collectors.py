"""Metrics of untouched programs: lines of output, CSV, JSON and TensorBoard files that grow."""

from __future__ import annotations

import json
import math
import threading
from pathlib import Path

import pytest

import trialbus
from trialbus.errors import SpecError
from trialbus.study.validation import convert
from trialbus_services.config.metric_source import MetricSource
from trialbus_services.worker.collectors.collector import Collector
from trialbus_services.worker.collectors.growing_file import GrowingFile
from trialbus_services.worker.collectors.readers import StepReading, make_reading, open_reader

EPOCHS = r"epoch (?P<step>\d+) .*acc=(?P<acc>\S+)"
TRIAL = trialbus.TrialAssigned(study="s", trial=3, attempt=1, params={})


def append(path: Path, text: str) -> None:
    with path.open("a", newline="") as file:
        file.write(text)


def test_a_line_of_output_is_read_once_it_has_ended(tmp_path: Path) -> None:
    path = tmp_path / "log"
    reader = open_reader(MetricSource(stdout=EPOCHS), path)
    assert reader.read(is_complete=False) == []
    append(path, "Loading\nepoch 1 | loss=0.5 acc=0.25\nepoch 2 | loss=0.4 acc=0.")
    assert reader.read(is_complete=False) == [StepReading(1, {"acc": 0.25})]
    append(path, "75\r\nepoch 3 | loss=0.3 acc=95%")
    assert reader.read(is_complete=False) == [StepReading(2, {"acc": 0.75})]
    assert reader.read(is_complete=True) == [StepReading(3, {"acc": 95.0})]


def test_the_lines_of_a_progress_bar_end_with_a_carriage_return(tmp_path: Path) -> None:
    path = tmp_path / "log"
    reader = open_reader(MetricSource(stdout=EPOCHS), path)
    append(path, "epoch 1 acc=0.1\repoch 1 acc=0.2\r\nepoch 2 acc=0.3\r")
    assert [r.metrics["acc"] for r in reader.read(is_complete=False)] == [0.1, 0.2, 0.3]


def test_what_an_earlier_attempt_left_in_a_file_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    append(path, "epoch,acc\n0,0.9\n1,0.8\n")
    reader = open_reader(MetricSource(file=str(path)), path)
    assert reader.read(is_complete=False) == []
    append(path, "2,0.7\n")
    assert reader.read(is_complete=False) == [StepReading(2, {"acc": 0.7})]


@pytest.mark.parametrize("n_rows", [1, 2, 9], ids=["shorter", "as long", "longer"])
def test_a_file_that_is_written_anew_is_read_from_its_start(tmp_path: Path, n_rows: int) -> None:
    path = tmp_path / "metrics.csv"
    append(path, "epoch,acc\n0,0.9\n1,0.8\n")
    reader = open_reader(MetricSource(file=str(path)), path)
    path.write_text("epoch,val\n" + "".join(f"{i},0.1\n" for i in range(n_rows)))
    readings = reader.read(is_complete=False)
    assert readings == [StepReading(i, {"val": 0.1}) for i in range(n_rows)]


def test_columns_that_are_no_numbers_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    reader = open_reader(MetricSource(file=str(path)), path)
    append(path, "                  epoch,   train/box_loss,metrics/mAP50(B),note\n")
    append(path, '1,1.25,nan,"a, b"\n2,,0.5,\n')
    first, second = reader.read(is_complete=False)
    assert (first.step, first.metrics["train/box_loss"]) == (1, 1.25)
    assert math.isnan(first.metrics["metrics/mAP50(B)"])
    assert second == StepReading(2, {"metrics/mAP50(B)": 0.5})


def test_json_lines_among_other_output_are_read(tmp_path: Path) -> None:
    path = tmp_path / "log"
    reader = open_reader(MetricSource(stdout="json"), path)
    append(path, 'start\n{"val": {"acc": 0.5}, "global_step": 10, "ok": true}\n[1]\n{"loss": 1}\n')
    assert reader.read(is_complete=False) == [
        StepReading(10, {"val/acc": 0.5}),
        StepReading(None, {"loss": 1.0}),
    ]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ([{"epoch": 1, "acc": 0.5}], [{"epoch": 1, "acc": 0.5}, {"epoch": 2, "acc": 0.6}]),
        ({"epoch": [1], "acc": [0.5]}, {"epoch": [1, 2], "acc": [0.5, 0.6]}),
        ({"epoch": 1, "acc": 0.5}, {"epoch": 2, "acc": 0.6}),
    ],
    ids=["list of mappings", "mapping of lists", "one mapping"],
)
def test_a_json_file_that_is_written_anew_gives_what_is_new(
    tmp_path: Path, first: object, second: object
) -> None:
    path = tmp_path / "history.json"
    reader = open_reader(MetricSource(file=str(path)), path)
    path.write_text(json.dumps(first))
    assert reader.read(is_complete=False) == [StepReading(1, {"acc": 0.5})]
    path.write_text(json.dumps(second)[:-3])
    assert reader.read(is_complete=False) == []
    path.write_text(json.dumps(second))
    assert reader.read(is_complete=True) == [StepReading(2, {"acc": 0.6})]


def test_scalars_of_tensorboard_are_read_by_step(tmp_path: Path) -> None:
    tensorboard = pytest.importorskip("torch.utils.tensorboard")
    with tensorboard.SummaryWriter(tmp_path / "earlier") as earlier:
        earlier.add_scalar("acc", 9.0, 0)
    reader = open_reader(MetricSource(tensorboard=str(tmp_path)), tmp_path)
    writer = tensorboard.SummaryWriter(tmp_path / "runs" / "now")
    for step in range(2):
        writer.add_scalar("val/acc", step / 2, step)
        writer.add_scalar("loss", 1.0, step)
    writer.flush()
    assert reader.read(is_complete=False) == [StepReading(0, {"val/acc": 0.0, "loss": 1.0})]
    assert reader.read(is_complete=False) == [StepReading(1, {"val/acc": 0.5, "loss": 1.0})]
    writer.add_scalar("loss", 0.5, 2)
    writer.close()
    assert reader.read(is_complete=True) == [StepReading(2, {"loss": 0.5})]


def test_a_collector_publishes_one_evaluation_a_step_and_counts_where_there_is_none(
    tmp_path: Path,
) -> None:
    path = tmp_path / "log"
    published: list[trialbus.EvaluationComplete] = []
    source = MetricSource(stdout=r"acc=(?P<acc>\S+)", names={"acc": "val/accuracy"})
    collector = Collector(TRIAL, [source], [path], published.append)
    append(path, "acc=0.5\nacc=high\nacc=0.75\n")
    collector.collect()
    assert [(e.trial, e.attempt, e.step, e.metrics) for e in published] == [
        (3, 1, 0, {"val/accuracy": 0.5}),
        (3, 1, 1, {"val/accuracy": 0.75}),
    ]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ({"step": 2**31, "acc": 0.5}, "step 2147483648, expected at most 2147483647"),
        (
            {"step": 3, **{f"m{i}": i for i in range(1001)}},
            "step 3 with 1001 metrics, expected at most 1000",
        ),
    ],
    ids=["step", "metrics"],
)
def test_what_a_program_left_and_does_not_count_is_named_as_the_reason(
    line: dict[str, float], problem: str, tmp_path: Path
) -> None:
    path = tmp_path / "log"
    published: list[trialbus.EvaluationComplete] = []
    collector = Collector(TRIAL, [MetricSource(stdout="json")], [path], published.append)
    append(path, f"{json.dumps(line)}\n")
    collector.collect()
    assert published == []
    lack = collector.describe_lack()
    assert lack is not None
    assert lack.endswith(f"does not count: {problem}")


def test_two_collections_at_once_publish_one_after_the_other(tmp_path: Path) -> None:
    path = tmp_path / "log"
    published: list[int] = []
    others: list[threading.Thread] = []

    def publish(event: trialbus.EvaluationComplete) -> None:
        if not others:  # what `finish` does while a thread of `follow` still publishes
            append(path, "acc=1\n")
            others.append(threading.Thread(target=collector.collect))
            others[0].start()
            others[0].join(0.2)  # returns at once where the other does not wait
        published.append(event.step)

    source = MetricSource(stdout=r"acc=(?P<acc>\S+)")
    collector = Collector(TRIAL, [source], [path], publish)
    append(path, "acc=0.5\nacc=0.75\n")
    collector.collect()
    others[0].join(10)
    assert published == [0, 1, 2]


def test_a_line_without_an_end_and_without_a_limit_is_not_kept(tmp_path: Path) -> None:
    path = tmp_path / "log"
    growing = GrowingFile(path)
    append(path, "x" * (3 << 20))
    assert growing.read_lines() == []
    append(path, "\nacc=1\n")
    assert growing.read_lines() == ["acc=1"]


@pytest.mark.parametrize(
    ("row", "step", "expected"),
    [
        ({"epoch": "3", "step": "7", "a": "1"}, None, StepReading(7, {"epoch": 3.0, "a": 1.0})),
        ({"it": "3.0", "a": "1e-3"}, "it", StepReading(3, {"a": 0.001})),
        ({"step": "-1", "a": 2}, None, StepReading(None, {"step": -1.0, "a": 2.0})),
        ({"step": "0.5", "a": 2}, None, StepReading(None, {"step": 0.5, "a": 2.0})),
        ({"a": None, "b": True, "c": [1], "": 1}, None, StepReading(None, {})),
        ({"a": 10**400, "b": "inf"}, None, StepReading(None, {"b": math.inf})),
    ],
    ids=["usual", "named", "negative", "fraction", "no numbers", "beyond a float"],
)
def test_the_numbers_of_a_row_are_metrics_and_one_is_the_step(
    row: dict[str, object], step: str | None, expected: StepReading
) -> None:
    assert make_reading(row, step) == expected


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ({}, "nothing is given"),
        ({"stdout": "json", "file": "a.csv"}, "stdout and file is given"),
        ({"stdout": "loss=(.*"}, "no regular expression"),
        ({"stdout": r"epoch (?P<step>\d+)"}, "no named group for a metric"),
        ({"file": "metrics.txt"}, "no suffix of a known format"),
        ({"stdout": "json", "format": "csv"}, "is for a file"),
        ({"file": " "}, "file is empty"),
        ({"fil": "a.csv"}, "did you mean 'file'"),
        ({"stdout": r"acc=(?P<acc>\S+)", "names": {"ac": "x"}}, "names.ac is no group"),
    ],
    ids=["none", "two", "broken", "no metric", "suffix", "format", "empty", "misspelt", "group"],
)
def test_a_wrong_source_is_refused_with_its_key(source: dict[str, str], problem: str) -> None:
    with pytest.raises(SpecError, match=problem.replace("(", r"\(")) as raised:
        convert("trainer.metrics", [source], list[MetricSource])
    assert raised.value.key.startswith("trainer.metrics[0]")
