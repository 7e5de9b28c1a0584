"""MetricStudy: a study in memory with the metric of the pruner as the only objective.

Optuna's pruners read the intermediate values and the direction of the study. Where the pruner
judges another metric than the objective's, and with several objectives, a pruner that has no
incremental rule reads this study instead.
"""

from __future__ import annotations

from collections.abc import Sequence

import optuna
from optuna.pruners import BasePruner
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from trialbus_services.optimizer.storage_writer.memory_storage import MemoryStorage


class MetricStudy:
    """The trials of a study, with the curves of the pruner's metric.

    Args:
        name: Name of the study.
        pruner: The pruner.
        trials: Trials of the study, numbered from 0, with the curves of the metric. The value of a
            complete trial is the last value of its curve.
        maximize: Whether higher values of the metric are better.
    """

    def __init__(
        self, name: str, pruner: BasePruner, trials: Sequence[FrozenTrial], *, maximize: bool
    ) -> None:
        self._storage = MemoryStorage()
        direction = StudyDirection.MAXIMIZE if maximize else StudyDirection.MINIMIZE
        copies = [_copy_with_value(trial) for trial in trials]
        self._study_id, self._trial_ids = self._storage.add_study(name, [direction], copies)
        self._study = optuna.Study(name, self._storage, optuna.samplers.RandomSampler(), pruner)

    def begin(self, trial: FrozenTrial) -> None:
        """Add a trial that starts, or clear the curve of a trial that starts again."""
        if trial.number < len(self._trial_ids):
            trial_copy = self._storage.get_trial(self._trial_ids[trial.number])
            trial_copy.intermediate_values.clear()
            trial_copy.state = TrialState.RUNNING
            trial_copy.params, trial_copy.distributions = trial.params, trial.distributions
            return
        template = _copy_with_value(trial, TrialState.RUNNING)
        self._trial_ids.append(self._storage.create_new_trial(self._study_id, template))

    def report(self, number: int, step: int, value: float) -> None:
        """Add a value of the metric to the curve of a trial."""
        self._storage.set_trial_intermediate_value(self._trial_ids[number], step, value)

    def finish(self, number: int, state: TrialState) -> None:
        """Finish a trial with a state."""
        finished = _copy_with_value(self._storage.get_trial(self._trial_ids[number]), state)
        self._storage.set_trial_state_values(
            self._trial_ids[number], finished.state, finished.values
        )

    def prune(self, number: int) -> bool:
        """Return whether the pruner prunes a trial."""
        trial = self._storage.get_trial(self._trial_ids[number])
        return self._study.pruner.prune(self._study, trial)


def _copy_with_value(trial: FrozenTrial, state: TrialState | None = None) -> FrozenTrial:
    """Return a copy of a trial, with the last value of the curve as the objective value.

    A complete trial without a curve becomes a failed trial.
    """
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
