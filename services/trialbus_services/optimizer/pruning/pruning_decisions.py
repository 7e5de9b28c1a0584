"""The decisions about one study's trials, whatever its pruner."""

from __future__ import annotations

from collections.abc import Callable
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
    Never,
    OptunaRule,
    Patient,
    Percentile,
    Rule,
    Threshold,
    get_arguments,
)
from trialbus_services.optimizer.pruning.successive_halving import Hyperband, SuccessiveHalving

_KNOWN = (
    HyperbandPruner,
    MedianPruner,
    NopPruner,
    PatientPruner,
    PercentilePruner,
    SuccessiveHalvingPruner,
    ThresholdPruner,
)
# The arguments they keep, in the order in which the rules take them.
_INTERVALS = ("n_warmup_steps", "interval_steps")
_PERCENTILE = ("percentile", "n_startup_trials", *_INTERVALS, "n_min_trials")
_THRESHOLD = ("lower", "upper", *_INTERVALS)
_HALVING = ("min_resource", "reduction_factor", "min_early_stopping_rate", "bootstrap_count")
_HYPERBAND = ("min_resource", "max_resource", "reduction_factor", "bootstrap_count")
_PATIENT = ("wrapped_pruner", "patience", "min_delta")


class PruningDecisions:
    """Decides from reported values and ended trials. Built by `build_pruning`."""

    def __init__(self, rule: Rule, *, maximize: bool) -> None:
        self.rule = rule
        self._maximize = maximize
        self._curves: dict[int, Curve] = {}

    @property
    def asks(self) -> bool:
        """Whether the pruner itself is asked each time."""
        return isinstance(self.rule, OptunaRule)

    def report(self, number: int, step: int, value: float) -> bool:
        """Add a value of an open trial and return whether the trial is to be pruned now."""
        return self.rule.decide(number, self.take(number, step, value))

    def take(self, number: int, step: int, value: float) -> Curve:
        """Add a value of an open trial and return the trial's curve."""
        curve = self._curves.get(number)
        if curve is None:
            curve = self._curves[number] = Curve(maximize=self._maximize)
        curve.add(step, value)
        return curve

    def attributes(self, number: int) -> dict[str, Any]:
        """Return, once, what is to be kept with a trial for `load`: a system attribute each."""
        return self.rule.attributes(number)

    def finish(self, number: int, state: TrialState) -> None:
        """Note that a trial ended."""
        curve = self._curves.pop(number, None) or Curve(maximize=self._maximize)
        self.rule.finish(number, curve, state)

    def load(self, trial: FrozenTrial) -> None:
        """Load a trial, in any state, from before a restart."""
        self.rule.recall(trial.number, trial.system_attrs)
        if trial.state.is_finished():
            curve = Curve.ended(trial.intermediate_values)
            self.rule.finish(trial.number, curve, trial.state)
            return
        for step, value in trial.intermediate_values.items():
            self.take(trial.number, step, value)

    def forget(self, number: int) -> None:
        """Forget the values of a trial that begins again."""
        self._curves.pop(number, None)


def build_pruning(
    pruner: BasePruner, *, study_name: str, maximize: bool, ask: Callable[[int], bool]
) -> PruningDecisions:
    """Return the decisions of a pruner.

    Args:
        pruner: Optuna's, whose arguments are taken over.
        study_name: Name of the study.
        maximize: Whether more of the reported value is better.
        ask: Asks the pruner itself about the trial of a number: for those that are not known here,
            a user's own among them.
    """
    rule = _rule(pruner, study_name, ask, maximize=maximize)
    return PruningDecisions(rule, maximize=maximize)


def _rule(
    pruner: BasePruner, study_name: str, ask: Callable[[int], bool], *, maximize: bool
) -> Rule:
    # Exactly these classes: one derived from them may decide anything.
    rule: Rule = OptunaRule(ask)
    match type(pruner).__name__ if type(pruner) in _KNOWN else None:
        case "NopPruner":
            rule = Never()
        case "MedianPruner" | "PercentilePruner":
            rule = Percentile(*get_arguments(pruner, *_PERCENTILE), maximize=maximize)
        case "ThresholdPruner":
            rule = Threshold(*get_arguments(pruner, *_THRESHOLD))
        case "SuccessiveHalvingPruner":
            rule = SuccessiveHalving(*get_arguments(pruner, *_HALVING), maximize=maximize)
        case "HyperbandPruner":
            rule = Hyperband(study_name, *get_arguments(pruner, *_HYPERBAND), maximize=maximize)
        case "PatientPruner":
            wrapped, *limits = get_arguments(pruner, *_PATIENT)
            inner = _rule(wrapped, study_name, ask, maximize=maximize) if wrapped else None
            if not isinstance(inner, OptunaRule):  # else it is asked as a whole
                rule = Patient(inner, *limits, maximize=maximize)
        case _:
            pass
    return rule
