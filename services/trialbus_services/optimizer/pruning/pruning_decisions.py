"""PruningDecisions: decides about the trials of a study, by the rule of the study's pruner."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any

from optuna.pruners import (
    BasePruner,
    HyperbandPruner,
    MedianPruner,
    NopPruner,
    PatientPruner,
    PercentilePruner,
    SuccessiveHalvingPruner,
    ThresholdPruner,
)
from optuna.trial import FrozenTrial, TrialState

from trialbus_services.optimizer.pruning.curve import Curve
from trialbus_services.optimizer.pruning.rules import (
    NopRule,
    OptunaRule,
    PatientRule,
    PercentileRule,
    Rule,
    ThresholdRule,
    get_arguments,
)
from trialbus_services.optimizer.pruning.successive_halving import (
    HyperbandRule,
    SuccessiveHalvingRule,
)

_KNOWN = (
    HyperbandPruner,
    MedianPruner,
    NopPruner,
    PatientPruner,
    PercentilePruner,
    SuccessiveHalvingPruner,
    ThresholdPruner,
)
# Arguments that the pruners keep, in the order of the rules' parameters.
_INTERVALS = ("n_warmup_steps", "interval_steps")
_PERCENTILE = ("percentile", "n_startup_trials", *_INTERVALS, "n_min_trials")
_THRESHOLD = ("lower", "upper", *_INTERVALS)
_HALVING = ("min_resource", "reduction_factor", "min_early_stopping_rate", "bootstrap_count")
_HYPERBAND = ("min_resource", "max_resource", "reduction_factor", "bootstrap_count")
_PATIENT = ("wrapped_pruner", "patience", "min_delta")


class PruningDecisions:
    """Decides from reported values and ended trials; `build_pruning` builds the decisions.

    Args:
        rule: Rule of the pruner.
        maximize: Whether higher values are better.
    """

    def __init__(self, rule: Rule, *, maximize: bool) -> None:
        self.rule = rule
        self._maximize = maximize
        self._curves: dict[int, Curve] = {}

    @property
    def asks_pruner(self) -> bool:
        """Whether each decision is left to the pruner of Optuna's interface."""
        return isinstance(self.rule, OptunaRule)

    def report(self, number: int, step: int, value: float) -> bool:
        """Add a value of an open trial and return whether the trial is to be pruned now."""
        curve = self._curves.get(number)
        if curve is None:
            curve = self._curves[number] = Curve(maximize=self._maximize)
        curve.add(step, value)
        return self.rule.decide(number, curve)

    def explain(self, number: int) -> str:
        """Return the step, the value and what it was compared with, of a trial just pruned."""
        curve = self._curves[number]
        return f"step {curve.last}: {self.rule.explain(number, curve)}"

    def pop_attributes(self, number: int) -> dict[str, Any]:
        """Remove and return the new system attributes of a trial, which `load_trials` reads."""
        return self.rule.pop_attributes(number)

    def finish(self, number: int, state: TrialState) -> None:
        """Add a trial that ended."""
        curve = self._curves.pop(number, None) or Curve(maximize=self._maximize)
        self.rule.finish(number, curve, state)

    def load_trials(self, trials: Sequence[FrozenTrial], open_numbers: Container[int] = ()) -> None:
        """Load trials in any state from the storage.

        Args:
            trials: The trials.
            open_numbers: Numbers of the trials whose attributes may be ahead of their curves.
        """
        for trial in trials:
            if trial.state.is_finished():
                curve = Curve.of_ended_trial(trial.intermediate_values)
                self.rule.finish(trial.number, curve, trial.state)
            else:
                self._curves[trial.number] = self._make_curve(trial.intermediate_values)
        # A rule may need all trials that ended to know which attributes count.
        for trial in trials:
            is_open = trial.number in open_numbers
            curve = self._curves.get(trial.number) if is_open else None
            self.rule.load_attributes(trial.number, curve, trial.system_attrs)

    def drop_values(self, number: int, first_step: int) -> list[str]:
        """Drop the values of an open trial from a step on.

        Returns:
            Keys of the system attributes that decisions about these values added.
        """
        curve = self._curves.get(number)
        if curve is None:
            return []
        kept = {step: value for step, value in curve.values.items() if step < first_step}
        curve = self._curves[number] = self._make_curve(kept)
        return self.rule.drop_values(number, curve)

    def _make_curve(self, values: Mapping[int, float]) -> Curve:
        curve = Curve(maximize=self._maximize)
        for step, value in values.items():
            curve.add(step, value)
        return curve


def build_pruning(
    pruner: BasePruner, *, study_name: str, maximize: bool, ask: Callable[[int], bool]
) -> PruningDecisions:
    """Build the decisions of a pruner.

    Args:
        pruner: The pruner of Optuna, whose arguments are taken over.
        study_name: Name of the study.
        maximize: Whether higher reported values are better.
        ask: Asks the pruner about the trial with a number; used for pruners without a rule, such as
            a user's class.
    """
    rule = _build_rule(pruner, study_name, ask, maximize=maximize)
    return PruningDecisions(rule, maximize=maximize)


def _build_rule(
    pruner: BasePruner, study_name: str, ask: Callable[[int], bool], *, maximize: bool
) -> Rule:
    # Exactly these classes: a derived class may decide differently.
    rule: Rule = OptunaRule(ask)
    match type(pruner).__name__ if type(pruner) in _KNOWN else None:
        case "NopPruner":
            rule = NopRule()
        case "MedianPruner" | "PercentilePruner":
            rule = PercentileRule(*get_arguments(pruner, *_PERCENTILE), maximize=maximize)
        case "ThresholdPruner":
            rule = ThresholdRule(*get_arguments(pruner, *_THRESHOLD))
        case "SuccessiveHalvingPruner":
            rule = SuccessiveHalvingRule(*get_arguments(pruner, *_HALVING), maximize=maximize)
        case "HyperbandPruner":
            rule = HyperbandRule(study_name, *get_arguments(pruner, *_HYPERBAND), maximize=maximize)
        case "PatientPruner":
            wrapped, *limits = get_arguments(pruner, *_PATIENT)
            inner = _build_rule(wrapped, study_name, ask, maximize=maximize) if wrapped else None
            if not isinstance(inner, OptunaRule):  # else Optuna decides for both pruners
                rule = PatientRule(inner, *limits, maximize=maximize)
        case _:
            pass
    return rule
