"""Studies of every kind, in memory."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState, create_trial

from trialbus_services.optimizer.attributes import ATTEMPT, ERROR, ORIGIN, SLOT, SPEC, STATE, WORKER

Direction = Literal["minimize", "maximize"]

START = datetime(2026, 3, 1, 9, 30)  # noqa: DTZ001 - Optuna's times have no zone
_X = FloatDistribution(0, 1)
_KIND = CategoricalDistribution(("a", "b"))


def make_trial(
    number: int,
    state: TrialState = TrialState.COMPLETE,
    *,
    params: Mapping[str, float | str] | None = None,
    values: Sequence[float] | None = None,
    steps: int = 5,
    error: str = "",
    user_attrs: Mapping[str, Any] | None = None,
    constraint: float | None = None,
) -> FrozenTrial:
    """Make a trial of two params, with a maximum at x = 0.4 and one second for each step."""
    params = {"x": number / 30, "y": (number * 7 % 30) / 30} if params is None else params
    x = params.get("x", 0.5)
    value = 1 - (x - 0.4) ** 2 if isinstance(x, float) else 0.5
    if values is None and state is TrialState.COMPLETE:
        values = [value]
    attrs = dict(user_attrs or {}) | ({ERROR: error} if error else {})
    frozen = create_trial(
        state=state,
        values=values,
        params=dict(params),
        distributions={k: _X if isinstance(v, float) else _KIND for k, v in params.items()},
        intermediate_values={step: value * step / steps for step in range(steps)},
        user_attrs=attrs,
        system_attrs={} if constraint is None else {"constraints:size": constraint},
    )
    frozen.datetime_start = START + timedelta(seconds=10 * number)
    if state.is_finished():
        frozen.datetime_complete = frozen.datetime_start + timedelta(seconds=steps)
    return frozen


def make_study(
    *trials: FrozenTrial, directions: Sequence[Direction] = ("maximize",), name: str = "study"
) -> optuna.Study:
    """Make a study of trials."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(directions=list(directions), study_name=name)
    study.add_trials(trials)
    return study


def make_ordinary_study(name: str = "study") -> optuna.Study:
    """Make a study with trials of every state that trialbus wrote."""
    study = make_study(
        *(make_trial(n, user_attrs=_make_slot_attrs(n)) for n in range(20)),
        *(
            make_trial(n, TrialState.PRUNED, steps=2, user_attrs=_make_slot_attrs(n))
            for n in range(20, 26)
        ),
        make_trial(26, TrialState.FAIL, error="Traceback\nRuntimeError: out of memory"),
        make_trial(27, TrialState.FAIL, error="gone", user_attrs={STATE: "lost"}),
        name=name,
    )
    study.set_user_attr(SPEC, {"objectives": [{"metric": "val/accuracy"}], "seed": 7})
    origin = {
        "config": {"sampler": {"name": "tpe"}},
        "command": "trialbus study sampler=tpe",
        "git": {"commit": "0123abcd", "dirty": False},
        "versions": {"optuna": "5.0.0"},
    }
    study.set_user_attr(ORIGIN, origin)
    return study


def _make_slot_attrs(number: int) -> dict[str, Any]:
    return {
        WORKER: f"node{number % 2}",
        SLOT: number // 2 % 2,
        ATTEMPT: 1,
    }


def _make_multi_objective_study(n: int) -> optuna.Study:
    values = [[k / 9, 1 - k / 9, k % 3, 1.0][:n] for k in range(9)]
    directions: list[Direction] = ["maximize", "maximize", "minimize", "maximize"]
    trials = (make_trial(k, values=v, steps=0) for k, v in enumerate(values))
    return make_study(*trials, directions=directions[:n])


KINDS: dict[str, Callable[[], optuna.Study]] = {
    "ordinary": make_ordinary_study,
    "no trial": make_study,
    "one trial": lambda: make_study(make_trial(0)),
    "none complete": lambda: make_study(*(make_trial(n, TrialState.PRUNED) for n in range(3))),
    "all running": lambda: make_study(*(make_trial(n, TrialState.RUNNING) for n in range(3))),
    "all waiting": lambda: make_study(*(make_trial(n, TrialState.WAITING) for n in range(3))),
    "all failed": lambda: make_study(
        *(make_trial(n, TrialState.FAIL, error="no") for n in range(3))
    ),
    "none feasible": lambda: make_study(*(make_trial(n, constraint=1.0) for n in range(5))),
    "some infeasible": lambda: make_study(*(make_trial(n, constraint=n - 3.0) for n in range(9))),
    "all of one value": lambda: make_study(*(make_trial(n, values=[1.0]) for n in range(5))),
    "infinite values": lambda: make_study(
        *(make_trial(n, values=[math.inf]) for n in range(2)), make_trial(3)
    ),
    "only infinite values": lambda: make_study(
        *(make_trial(n, values=[-math.inf]) for n in range(3))
    ),
    "nan on the way": lambda: make_study(*(_add_nan(make_trial(n)) for n in range(5))),
    "one param": lambda: make_study(*(make_trial(n, params={"x": n / 9}) for n in range(9))),
    "no param": lambda: make_study(*(make_trial(n, params={}, values=[n / 9]) for n in range(9))),
    "categorical only": lambda: make_study(
        *(make_trial(n, params={"kind": "ab"[n % 2]}, values=[n / 9]) for n in range(9))
    ),
    "conditional params": lambda: make_study(
        *(make_trial(n, params={"kind": "ab"[n % 2], "xy"[n % 2]: n / 9}) for n in range(9))
    ),
    "a hundred params": lambda: make_study(
        *(
            make_trial(n, params={f"p{i}": (n * i % 17) / 17 for i in range(100)}, values=[n / 9])
            for n in range(9)
        )
    ),
    "two objectives": lambda: _make_multi_objective_study(2),
    "three objectives": lambda: _make_multi_objective_study(3),
    "four objectives": lambda: _make_multi_objective_study(4),
}


def _add_nan(trial: FrozenTrial) -> FrozenTrial:
    trial.intermediate_values = {0: math.nan, 1: math.inf, 2: 0.5}
    return trial


def make_large_study(n_trials: int, name: str = "large") -> optuna.Study:
    """Make a study like a real search: four params, curves, pruned and failed trials."""
    chance = random.Random(n_trials)
    space: dict[str, BaseDistribution] = {
        "lr": FloatDistribution(1e-5, 1e-1, log=True),
        "width": IntDistribution(16, 256, log=True),
        "dropout": FloatDistribution(0, 0.5),
        "optimizer": CategoricalDistribution(("sgd", "adam", "lion")),
    }
    free = [START] * 4
    trials: list[FrozenTrial] = []
    for number in range(n_trials):
        params: dict[str, Any] = {
            "lr": 10 ** chance.uniform(-5, -1),
            "width": chance.randint(16, 256),
            "dropout": chance.uniform(0, 0.5),
            "optimizer": chance.choice(("sgd", "adam", "lion")),
        }
        distance = math.log10(params["lr"]) + 2.7
        value = 0.7 / (1 + distance * distance) + params["width"] / 1000 + chance.gauss(0, 0.01)
        failed, pruned = number % 23 == 7, number > 3 and value < 0.35
        steps = chance.randint(2, 8) if failed or pruned else 20
        state = TrialState.FAIL if failed else TrialState.PRUNED if pruned else TrialState.COMPLETE
        slot = min(range(4), key=lambda i: free[i])
        attrs = {WORKER: f"node{slot // 2}", SLOT: slot % 2}
        if failed:
            attrs[ERROR] = "Traceback\nRuntimeError: out of memory"
        frozen = create_trial(
            state=state,
            values=[value] if state is TrialState.COMPLETE else None,
            params=params,
            distributions=space,
            intermediate_values={s: value * (1 - math.exp(-s / 5)) for s in range(steps)},
            user_attrs=attrs,
        )
        frozen.datetime_start = free[slot]
        free[slot] += timedelta(seconds=steps + chance.random())
        frozen.datetime_complete = free[slot]
        trials.append(frozen)
    return make_study(*trials, name=name)
