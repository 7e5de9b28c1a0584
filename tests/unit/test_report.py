"""The report of every kind of study says what it can and never breaks."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
import yaml
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from trialbus_services.reporter import facts
from trialbus_services.reporter.report import write_report

X = FloatDistribution(0, 1)
KIND = CategoricalDistribution(("a", "b"))


@pytest.fixture(autouse=True)
def quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)


def trial(
    number: int,
    state: TrialState = TrialState.COMPLETE,
    *,
    params: dict[str, float | str] | None = None,
    values: list[float] | None = None,
    steps: int = 5,
    error: str = "",
) -> FrozenTrial:
    params = {"x": number / 30, "y": (number * 7 % 30) / 30} if params is None else params
    value = 1 - (float(params.get("x", 0.5)) - 0.4) ** 2  # type: ignore[arg-type]
    if values is None and state == TrialState.COMPLETE:
        values = [value]
    return create_trial(
        state=state,
        values=values,
        value=value if state == TrialState.PRUNED else None,
        params=params,
        distributions={k: X if isinstance(v, float) else KIND for k, v in params.items()},
        intermediate_values={s: value * s / steps for s in range(steps)},
        user_attrs={"trialbus:error": error} if error else {},
    )


def study(*trials: FrozenTrial, directions: int = 1, name: str = "study") -> optuna.Study:
    maximize = optuna.study.StudyDirection.MAXIMIZE
    made = optuna.create_study(directions=[maximize] * directions, study_name=name)
    made.add_trials(trials)
    return made


STUDIES: dict[str, Callable[[], optuna.Study]] = {
    "ordinary": lambda: study(
        *(trial(n) for n in range(20)),
        *(trial(n, TrialState.PRUNED, steps=2) for n in range(20, 26)),
        trial(26, TrialState.FAIL, error="Traceback\nRuntimeError: out of memory"),
    ),
    "no trial": study,
    "one trial": lambda: study(trial(0)),
    "none complete": lambda: study(*(trial(n, TrialState.PRUNED) for n in range(3))),
    "all failed": lambda: study(*(trial(n, TrialState.FAIL, error="no") for n in range(3))),
    "all of one value": lambda: study(*(trial(n, values=[1.0]) for n in range(5))),
    "infinite values": lambda: study(*(trial(n, values=[math.inf]) for n in range(2)), trial(3)),
    "one param": lambda: study(*(trial(n, params={"x": n / 9}) for n in range(9))),
    "no param": lambda: study(*(trial(n, params={}, values=[n / 9]) for n in range(9))),
    "categorical only": lambda: study(
        *(trial(n, params={"kind": "ab"[n % 2]}, values=[n / 9]) for n in range(9))
    ),
    "conditional params": lambda: study(
        *(trial(n, params={"kind": "ab"[n % 2], "xy"[n % 2]: n / 9}) for n in range(9))
    ),
    "a hundred params": lambda: study(
        *(
            trial(n, params={f"p{i}": (n * i % 17) / 17 for i in range(100)}, values=[n / 9])
            for n in range(9)
        )
    ),
    "two objectives": lambda: study(
        *(trial(n, values=[n / 9, 1 - n / 9], steps=0) for n in range(9)), directions=2
    ),
    "three objectives": lambda: study(
        *(trial(n, values=[n / 9, 1 - n / 9, n % 3], steps=0) for n in range(9)), directions=3
    ),
    "four objectives": lambda: study(
        *(trial(n, values=[n / 9, 1 - n / 9, n % 3, 1.0], steps=0) for n in range(9)), directions=4
    ),
}


@pytest.mark.parametrize("kind", STUDIES)
def test_a_study_of_every_kind_gets_a_page_that_needs_nothing_beside_it(
    kind: str, tmp_path: Path
) -> None:
    page = write_report(STUDIES[kind](), tmp_path)[0].read_text()
    assert page.count("plotly.js v") == 1
    body = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert not re.search(r"""(src|href)=["'](?!#)""", body)


def test_the_page_of_an_ordinary_study_has_every_figure(tmp_path: Path) -> None:
    page = write_report(STUDIES["ordinary"](), tmp_path)[0].read_text()
    shown = re.findall(r'data-figure="(\w+)"', page)
    expected = {"history", "intermediate", "importances", "parallel", "slices", "timeline"}
    assert expected <= set(shown)
    assert 'class="missing"' not in page
    assert "RuntimeError: out of memory" in page


def test_names_and_errors_cannot_become_markup(tmp_path: Path) -> None:
    nasty = "<script>alert(1)</script>"
    evil = study(
        *(trial(n, params={nasty: n / 9, "y": 1 - n / 9}) for n in range(9)),
        trial(9, TrialState.FAIL, params={nasty: 0.5, "y": 0.5}, error=nasty),
        name=f"../{nasty}",
    )
    (page, *_) = write_report(evil, tmp_path, metrics=[nasty], config={"name": nasty})
    assert nasty not in page.read_text()
    assert page.is_relative_to(tmp_path)
    assert page.parent.parent == tmp_path


def test_the_files_beside_the_page_can_be_read_back(tmp_path: Path) -> None:
    ordinary = STUDIES["ordinary"]()
    _, table, best = write_report(ordinary, tmp_path, metrics=["accuracy"])
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 27
    assert float(rows[3]["accuracy"]) == ordinary.trials[3].value
    assert {row["state"] for row in rows} == {"complete", "pruned", "fail"}
    assert yaml.safe_load(best.read_text()) == ordinary.best_params


def test_what_pruning_saved_is_counted_in_steps() -> None:
    trials = [trial(n, steps=10) for n in range(3)]
    trials += [trial(n, TrialState.PRUNED, steps=4) for n in range(5)]
    found = facts.gather(study(*trials), trials, None)
    assert found.saved == pytest.approx(5 * 6 / (3 * 10 + 5 * 10))
