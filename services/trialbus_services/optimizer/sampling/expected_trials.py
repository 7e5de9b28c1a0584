"""Expected trials: how many trials a study will have in the end, also in a finite space."""

from __future__ import annotations

from collections.abc import Sequence

from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from trialbus.study.spec import StudySpec
from trialbus_services.optimizer.enumerating_samplers import Grid
from trialbus_services.optimizer.registry import is_enumerating
from trialbus_services.optimizer.sampling.coverage import Coverage, get_duplicate_policy


def count_expected_trials(
    spec: StudySpec, sampler: BaseSampler, trials: Sequence[FrozenTrial]
) -> int:
    """Return the number of trials that a study will have when nothing ends the study early.

    This is `n_trials`, or less where each point of a finite space is tried once: the trials that
    have begun, and the points that they left free.

    Args:
        spec: Specification of the study.
        sampler: The study's sampler.
        trials: All trials of the study.
    """
    if not (get_duplicate_policy(spec) == "skip" or is_enumerating(spec.sampler)):
        return spec.n_trials
    coverage = Coverage(spec, sampler.list_points() if isinstance(sampler, Grid) else None)
    n_points = coverage.n_points
    if n_points is None or n_points >= spec.n_trials:
        return spec.n_trials
    begun = [trial for trial in trials if trial.state is not TrialState.WAITING]
    for trial in begun:
        coverage.take(trial.params, trial.number)
    n_free = coverage.n_free or 0
    n_beside = sum(
        coverage.is_beside(trial.system_attrs.get("fixed_params", {}))
        for trial in trials
        if trial.state is TrialState.WAITING
    )
    return min(spec.n_trials, len(begun) + n_free + n_beside)
