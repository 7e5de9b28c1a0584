"""Trials of plain Optuna in this process, for notebooks and tests: no bus, no worker."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import optuna

from trialbus.messages import events
from trialbus.study.spec import StudySpec
from trialbus.trainer.distributed import Ranks
from trialbus.trainer.trial import Trial
from trialbus_services.optimizer.assignment import build_assignment
from trialbus_services.optimizer.distributions import suggest_params
from trialbus_services.optimizer.objective import compute_objective


def run_optuna_trial(
    function: Callable[[Trial], Any], trial: optuna.Trial, spec: StudySpec
) -> list[float]:
    """Run a training for a trial of plain Optuna and return the objective values.

    The function is what `trainer=function` runs, too. Trials may follow each other in one process:
    what a trial leaves in Hydra's global state is cleared.

    Args:
        function: Called with the `trialbus.Trial`; what it returns are the objective values, None
            leaves them to the evaluations.
        trial: As `study.optimize` or `study.ask` hands it out; its pruner decides at each report,
            if the study has one objective.
        spec: Search space, objectives, budget and seed.

    Raises:
        optuna.TrialPruned: The pruner ended the trial.
        ValueError: The trial ended without a value for an objective.

    Example:
        >>> study.optimize(lambda t: run_optuna_trial(train, t, spec), 20)  # doctest: +SKIP
    """
    channel = _OptunaChannel(trial, spec)
    assigned = build_assignment(spec, trial.number, suggest_params(trial, spec.space))
    _clear_hydra()
    try:
        with Trial(assigned, channel, None, Ranks()) as handle:
            values = function(handle)
            if values is not None:
                handle.complete(values)
    finally:
        _clear_hydra()
    finished = channel.finished
    if finished is None or finished.state == "pruned":
        raise optuna.TrialPruned
    return finished.values or channel.values()


class _OptunaChannel:
    """Channel of a trial that passes reports to Optuna at once."""

    def __init__(self, trial: optuna.Trial, spec: StudySpec) -> None:
        self.finished: events.TrialFinished | None = None
        self._trial = trial
        self._objectives = spec.objectives
        self._curves: dict[str, dict[int, float]] = {o.metric: {} for o in spec.objectives}
        self._is_reported = False
        self._step = 0

    def publish(self, event: events.Event, *, at_once: bool = True) -> None:
        match event:
            case events.EvaluationComplete():
                for name, curve in self._curves.items():
                    if name in event.metrics:
                        curve[event.step] = event.metrics[name]
                first = self._objectives[0].metric
                if len(self._objectives) == 1 and first in event.metrics:
                    self._trial.report(event.metrics[first], event.step)
                    self._is_reported, self._step = True, event.step
            case events.TrialAttributeSet():
                self._trial.set_user_attr(event.key, event.value)
            case events.TrialFinished():
                self.finished = event
                for key, violation in event.constraints.items():
                    self._trial.set_constraint(key, violation)
            case _:
                return

    def find_prune(self, attempt: int) -> events.Prune | None:
        is_reported, self._is_reported = self._is_reported, False
        if not (is_reported and self._trial.should_prune()):
            return None
        reason = type(self._trial.study.pruner).__name__
        number = self._trial.number
        return events.Prune(trial=number, attempt=attempt, step=self._step, reason=reason)

    def wait_for_decision(self, attempt: int, step: int, wait_s: float) -> events.Prune | None:
        return self.find_prune(attempt)

    def request_param(self, request: events.ParamRequested) -> events.ParamSuggested:
        try:
            values = suggest_params(self._trial, {request.name: request.param})
        except ValueError as error:  # the name has another distribution
            return events.ParamSuggested(trial=request.trial, name=request.name, error=str(error))
        return events.ParamSuggested(
            trial=request.trial, name=request.name, value=values[request.name]
        )

    def note_signal(self) -> bool:
        return False

    def close(self) -> None:
        return

    def values(self) -> list[float]:
        values = [compute_objective(self._curves[o.metric], o) for o in self._objectives]
        for objective, value in zip(self._objectives, values, strict=True):
            if value is None:
                raise ValueError(f"trial {self._trial.number} reported no {objective.metric!r}")
        return [value for value in values if value is not None]


def _clear_hydra() -> None:
    """Clear the global state that `hydra.initialize` and `@hydra.main` leave."""
    if "hydra" in sys.modules:
        from hydra.core.global_hydra import GlobalHydra
        from hydra.core.hydra_config import HydraConfig

        GlobalHydra.instance().clear()
        HydraConfig.instance().cfg = None
