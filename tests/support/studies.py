"""Studies of every kind, made at once in memory."""

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

BEGUN = datetime(2026, 3, 1, 9, 30)  # noqa: DTZ001 - Optuna's times have no zone
_X = FloatDistribution(0, 1)
_KIND = CategoricalDistribution(("a", "b"))


def trial(
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
    """Make a trial of a study with two params and a hill at x = 0.4, one second for each step."""
    params = {"x": number / 30, "y": (number * 7 % 30) / 30} if params is None else params
    x = params.get("x", 0.5)
    value = 1 - (x - 0.4) ** 2 if isinstance(x, float) else 0.5
    if values is None and state is TrialState.COMPLETE:
        values = [value]
    attrs = dict(user_attrs or {}) | ({ERROR: error} if error else {})
    made = create_trial(
        state=state,
        values=values,
        params=dict(params),
        distributions={k: _X if isinstance(v, float) else _KIND for k, v in params.items()},
        intermediate_values={step: value * step / steps for step in range(steps)},
        user_attrs=attrs,
        system_attrs={} if constraint is None else {"constraints:size": constraint},
    )
    made.datetime_start = BEGUN + timedelta(seconds=10 * number)
    if state.is_finished():
        made.datetime_complete = made.datetime_start + timedelta(seconds=steps)
    return made


def study(
    *trials: FrozenTrial, directions: Sequence[Direction] = ("maximize",), name: str = "study"
) -> optuna.Study:
    """Make a study of trials."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    made = optuna.create_study(directions=list(directions), study_name=name)
    made.add_trials(trials)
    return made


def ordinary(name: str = "study") -> optuna.Study:
    """Make a study with trials of every state that trialbus wrote."""
    found = study(
        *(trial(n, user_attrs=_place(n)) for n in range(20)),
        *(trial(n, TrialState.PRUNED, steps=2, user_attrs=_place(n)) for n in range(20, 26)),
        trial(26, TrialState.FAIL, error="Traceback\nRuntimeError: out of memory"),
        trial(27, TrialState.FAIL, error="gone", user_attrs={STATE: "lost"}),
        name=name,
    )
    found.set_user_attr(SPEC, {"objectives": [{"metric": "val/accuracy"}], "seed": 7})
    origin = {
        "config": {"sampler": {"name": "tpe"}},
        "command": "trialbus study sampler=tpe",
        "git": {"commit": "0123abcd", "dirty": False},
        "versions": {"optuna": "5.0.0"},
    }
    found.set_user_attr(ORIGIN, origin)
    return found


def _place(number: int) -> dict[str, Any]:
    return {
        WORKER: f"node{number % 2}",
        SLOT: number // 2 % 2,
        ATTEMPT: 1,
    }


def _several(n: int) -> optuna.Study:
    values = [[k / 9, 1 - k / 9, k % 3, 1.0][:n] for k in range(9)]
    directions: list[Direction] = ["maximize", "maximize", "minimize", "maximize"]
    made = (trial(k, values=v, steps=0) for k, v in enumerate(values))
    return study(*made, directions=directions[:n])


KINDS: dict[str, Callable[[], optuna.Study]] = {
    "ordinary": ordinary,
    "no trial": study,
    "one trial": lambda: study(trial(0)),
    "none complete": lambda: study(*(trial(n, TrialState.PRUNED) for n in range(3))),
    "all running": lambda: study(*(trial(n, TrialState.RUNNING) for n in range(3))),
    "all waiting": lambda: study(*(trial(n, TrialState.WAITING) for n in range(3))),
    "all failed": lambda: study(*(trial(n, TrialState.FAIL, error="no") for n in range(3))),
    "none feasible": lambda: study(*(trial(n, constraint=1.0) for n in range(5))),
    "some infeasible": lambda: study(*(trial(n, constraint=n - 3.0) for n in range(9))),
    "all of one value": lambda: study(*(trial(n, values=[1.0]) for n in range(5))),
    "infinite values": lambda: study(*(trial(n, values=[math.inf]) for n in range(2)), trial(3)),
    "only infinite values": lambda: study(*(trial(n, values=[-math.inf]) for n in range(3))),
    "nan on the way": lambda: study(*(_with_nan(trial(n)) for n in range(5))),
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
    "two objectives": lambda: _several(2),
    "three objectives": lambda: _several(3),
    "four objectives": lambda: _several(4),
}


def _with_nan(found: FrozenTrial) -> FrozenTrial:
    found.intermediate_values = {0: math.nan, 1: math.inf, 2: 0.5}
    return found


def large(n_trials: int, name: str = "large") -> optuna.Study:
    """Make a study like a real search: four params, curves, pruned and failed trials."""
    chance = random.Random(n_trials)
    space: dict[str, BaseDistribution] = {
        "lr": FloatDistribution(1e-5, 1e-1, log=True),
        "width": IntDistribution(16, 256, log=True),
        "dropout": FloatDistribution(0, 0.5),
        "optimizer": CategoricalDistribution(("sgd", "adam", "lion")),
    }
    free = [BEGUN] * 4
    trials: list[FrozenTrial] = []
    for number in range(n_trials):
        params: dict[str, Any] = {
            "lr": 10 ** chance.uniform(-5, -1),
            "width": chance.randint(16, 256),
            "dropout": chance.uniform(0, 0.5),
            "optimizer": chance.choice(("sgd", "adam", "lion")),
        }
        far = math.log10(params["lr"]) + 2.7
        value = 0.7 / (1 + far * far) + params["width"] / 1000 + chance.gauss(0, 0.01)
        failed, pruned = number % 23 == 7, number > 3 and value < 0.35
        steps = chance.randint(2, 8) if failed or pruned else 20
        state = TrialState.FAIL if failed else TrialState.PRUNED if pruned else TrialState.COMPLETE
        slot = min(range(4), key=lambda i: free[i])
        attrs = {WORKER: f"node{slot // 2}", SLOT: slot % 2}
        if failed:
            attrs[ERROR] = "Traceback\nRuntimeError: out of memory"
        made = create_trial(
            state=state,
            values=[value] if state is TrialState.COMPLETE else None,
            params=params,
            distributions=space,
            intermediate_values={s: value * (1 - math.exp(-s / 5)) for s in range(steps)},
            user_attrs=attrs,
        )
        made.datetime_start = free[slot]
        free[slot] += timedelta(seconds=steps + chance.random())
        made.datetime_complete = free[slot]
        trials.append(made)
    return study(*trials, name=name)
