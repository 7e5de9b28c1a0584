"""A metric that no source of `trainer.metrics` can give is refused before the study starts."""

from __future__ import annotations

import pytest

import trialbus
from trialbus_services.config.metric_source import MetricSource
from trialbus_services.worker.metrics_check import check_metrics

PATTERN = MetricSource(
    stdout=r"epoch (?P<step>\d+) loss=(?P<loss>\S+) acc=(?P<acc>\S+)", names={"acc": "val/accuracy"}
)
CSV = MetricSource(file="metrics.csv", step="epoch", names={"val_acc": "val/accuracy"})


def make_spec(*metrics: str, constraint: str = "") -> trialbus.StudySpec:
    return trialbus.StudySpec(
        name="s",
        params={"x": trialbus.FloatParam(low=0, high=1)},
        objectives=tuple(trialbus.Objective(metric=metric) for metric in metrics),
        constraints=(constraint,) if constraint else (),
        n_trials=1,
    )


@pytest.mark.parametrize(
    ("source", "spec", "problem"),
    [
        pytest.param(
            PATTERN,
            make_spec("los"),
            r"study\.objective\.metric: 'los' is no metric .*did you mean 'loss'",
            id="misspelt",
        ),
        pytest.param(
            PATTERN, make_spec("f1"), "expected one of loss, val/accuracy", id="no-near-name"
        ),
        pytest.param(PATTERN, make_spec("loss", "acc"), r"study\.objective\[1\]", id="renamed"),
        pytest.param(PATTERN, make_spec("step"), "'step' is no metric", id="step"),
        pytest.param(
            PATTERN,
            make_spec("loss", constraint="acc <= x"),
            r"study\.constraints\[0\]: 'acc' is no metric",
            id="constraint",
        ),
        pytest.param(CSV, make_spec("val_acc"), "did you mean 'val/accuracy'", id="csv-renamed"),
        pytest.param(CSV, make_spec("epoch"), "'epoch' is no metric", id="csv-step"),
    ],
)
def test_a_metric_that_cannot_come_is_refused_with_the_nearest_one(
    source: MetricSource, spec: trialbus.StudySpec, problem: str
) -> None:
    with pytest.raises(trialbus.SpecError, match=problem):
        check_metrics([source], spec)


@pytest.mark.parametrize(
    ("sources", "spec"),
    [
        pytest.param([PATTERN], make_spec("loss", "val/accuracy"), id="groups"),
        pytest.param([PATTERN], make_spec("loss", constraint="loss <= x"), id="param"),
        pytest.param([PATTERN, CSV], make_spec("f1"), id="column"),
        pytest.param([MetricSource(stdout="json")], make_spec("anything"), id="json"),
        pytest.param([], make_spec("anything"), id="reported-by-the-program"),
    ],
)
def test_a_metric_that_may_come_is_not_refused(
    sources: list[MetricSource], spec: trialbus.StudySpec
) -> None:
    check_metrics(sources, spec)
