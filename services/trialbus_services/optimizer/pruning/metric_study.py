"""A study of one objective, beside the real one, for pruners that must be asked.

Optuna's pruners look at the study's own intermediate values and direction. Where another metric
drives them, as it must with several objectives, they look at this study instead.
"""

from __future__ import annotations

from collections.abc import Sequence

import optuna
from optuna.pruners import BasePruner
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from trialbus_services.optimizer.storage_writer.memory_storage import MemoryStorage


class MetricStudy:
    """The trials of a study, with the curves of the metric that drives its pruner.

    Args:
        name: Name of the study.
        maximize: Whether more of the metric is better.
        pruner: The pruner.
        trials: The study's trials, numbered one by one, with the curves of that metric. A complete
            one is worth the last of its curve.
    """

    def __init__(
        self, name: str, pruner: BasePruner, trials: Sequence[FrozenTrial], *, maximize: bool
    ) -> None:
        self._storage = MemoryStorage()
        direction = StudyDirection.MAXIMIZE if maximize else StudyDirection.MINIMIZE
        copies = [_copy_with_value(trial) for trial in trials]
        self._study_id, self._ids = self._storage.fill(name, [direction], copies)
        self._study = optuna.Study(name, self._storage, optuna.samplers.RandomSampler(), pruner)

    def begin(self, trial: FrozenTrial) -> None:
        """Add a trial that starts, or restart a trial."""
        if trial.number < len(self._ids):
            trial_copy = self._storage.get_trial(self._ids[trial.number])
            trial_copy.intermediate_values.clear()
            trial_copy.state = TrialState.RUNNING
            trial_copy.params, trial_copy.distributions = trial.params, trial.distributions
            return
        template = _copy_with_value(trial, TrialState.RUNNING)
        self._ids.append(self._storage.create_new_trial(self._study_id, template))

    def report(self, number: int, step: int, value: float) -> None:
        """Add a value of the metric."""
        self._storage.set_trial_intermediate_value(self._ids[number], step, value)

    def finish(self, number: int, state: TrialState) -> None:
        """Note that a trial ended."""
        ended = _copy_with_value(self._storage.get_trial(self._ids[number]), state)
        self._storage.set_trial_state_values(self._ids[number], ended.state, ended.values)

    def prune(self, number: int) -> bool:
        """Ask the pruner about a trial."""
        trial = self._storage.get_trial(self._ids[number])
        return self._study.pruner.prune(self._study, trial)


def _copy_with_value(trial: FrozenTrial, state: TrialState | None = None) -> FrozenTrial:
    """Return a copy of a trial whose value is the last of its curve; without a curve it failed."""
    state = trial.state if state is None else state
    curve = trial.intermediate_values
    values = [curve[max(curve)]] if curve and state is not TrialState.FAIL else None
    if state is TrialState.COMPLETE and values is None:
        state = TrialState.FAIL
    return FrozenTrial(
        number=trial.number,
        trial_id=-1,
        state=state,
        value=None,
        values=values if state.is_finished() else None,
        datetime_start=trial.datetime_start,
        datetime_complete=trial.datetime_complete,
        params=trial.params,
        distributions=trial.distributions,
        user_attrs=trial.user_attrs,
        system_attrs=trial.system_attrs,
        intermediate_values=dict(curve),
    )
