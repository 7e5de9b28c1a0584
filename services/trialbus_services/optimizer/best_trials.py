"""Best trials of a study, as the events of the bus have them."""

from __future__ import annotations

import optuna

from trialbus.messages import events


def find_best_trials(study: optuna.Study) -> list[events.BestTrial]:
    """Return the best trial of a study, or the Pareto front; empty without a feasible trial."""
    try:
        best = study.best_trials if len(study.directions) > 1 else [study.best_trial]
    except ValueError:
        return []
    return [events.BestTrial(number=t.number, values=list(t.values), params=t.params) for t in best]
