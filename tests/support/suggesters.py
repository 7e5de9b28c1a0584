"""Suggesters, and studies whose suggestions they request."""

from __future__ import annotations

import threading
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from optuna.trial import FrozenTrial, TrialState, create_trial

from trialbus import CategoricalParam, Component, FloatParam, IntParam, Objective, StudySpec
from trialbus_services.optimizer.sampling.messages import Suggestion
from trialbus_services.optimizer.sampling.suggester import Suggester

TIMEOUT_S = 30.0
_READY = threading.Event()  # set by every suggester

MIXED = {
    "x": FloatParam(low=0, high=1),
    "lr": FloatParam(low=1e-4, high=1, log=True),
    "n": IntParam(low=1, high=6),
    "kind": CategoricalParam(choices=("a", "b", "c")),
}
NUMBERS = {name: MIXED[name] for name in ("x", "lr", "n")}
POINTS = {"n": MIXED["n"], "kind": MIXED["kind"]}
HYPERBAND = Component(
    type="HyperbandPruner", args={"min_resource": 1, "max_resource": 9, "reduction_factor": 3}
)


def make_spec(sampler: str = "TPESampler", **changes: Any) -> StudySpec:
    fields: dict[str, Any] = {
        "name": "s",
        "params": MIXED,
        "objectives": (Objective(metric="m", direction="minimize"),),
        "n_trials": 40,
        "sampler": Component(type=sampler, args=changes.pop("args", {})),
        "pruner": Component(type="MedianPruner", args={"n_startup_trials": 3}),
        "seed": 3,
    }
    return StudySpec(**fields | changes)


TWO_OBJECTIVES = (
    Objective(metric="m", direction="minimize"),
    Objective(metric="k", direction="maximize"),
)


class Start(Protocol):
    """Starts a suggester."""

    def __call__(
        self,
        study: StudySpec,
        trials: Sequence[FrozenTrial] = (),
        study_attrs: Mapping[str, Any] | None = None,
        *,
        ahead: int = 0,
        on_ready: Any = None,
    ) -> Suggester: ...


@contextmanager
def start_suggesters() -> Generator[Start]:
    """Start suggesters that end with the block."""
    started: list[Suggester] = []

    def start(
        study: StudySpec,
        trials: Sequence[FrozenTrial] = (),
        study_attrs: Mapping[str, Any] | None = None,
        *,
        ahead: int = 0,
        on_ready: Any = None,
    ) -> Suggester:
        def notify() -> None:
            if on_ready is not None:
                on_ready()
            _READY.set()

        suggester = Suggester(study, trials, study_attrs or {}, ahead=ahead, on_ready=notify)
        started.append(suggester)
        return suggester

    try:
        yield start
    finally:
        for suggester in started:
            suggester.close()


def wait_for_suggestion(suggester: Suggester) -> Suggestion:
    """Wait for the suggestion of the sampler process and return the suggestion."""
    while True:
        _READY.clear()
        suggestion = suggester.take_suggestion()
        if suggestion is not None:
            return suggestion
        assert suggester.error is None, suggester.error
        assert _READY.wait(TIMEOUT_S), "no suggestion came"


def request_suggestion(suggester: Suggester) -> Suggestion:
    """Request a suggestion and return the suggestion."""
    suggester.request()
    return wait_for_suggestion(suggester)


def make_waiting_trial(number: int, **params: Any) -> FrozenTrial:
    trial = create_trial(
        state=TrialState.WAITING,
        system_attrs={"fixed_params": params},
        user_attrs={"why": "to see"},
    )
    trial.number = number
    return trial
