"""Best trials of a study, as the events of the bus have them."""

from __future__ import annotations

import optuna
from optuna.trial import FrozenTrial, TrialState

from trialbus.messages import events
from trialbus_services.optimizer.verdict import is_feasible


def find_best_trials(study: optuna.Study) -> list[events.BestTrial]:
    """Return the best trial of a study, or the Pareto front; empty without a feasible trial."""
    try:
        best = study.best_trials if len(study.directions) > 1 else [_find_best_trial(study)]
    except ValueError:
        return []
    return [events.BestTrial(number=t.number, values=list(t.values), params=t.params) for t in best]


def _find_best_trial(study: optuna.Study) -> FrozenTrial:
    """Return the best trial; of equal trials the first, in place of the first that ended.

    Raises:
        ValueError: No trial is complete and feasible.
    """
    best = study.best_trial
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    equal = [trial for trial in complete if trial.values == best.values and is_feasible(trial)]
    return min(equal, key=lambda trial: trial.number, default=best)
