"""MetricStudy: a study in memory with the metric of the pruner as the only objective.

Optuna's pruners read the intermediate values and the direction of the study. Where the pruner
judges another metric than the objective's, and with several objectives, a pruner that has no
incremental rule reads this study instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

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
        get_trial: Returns the trial of the study with a number.
        maximize: Whether higher values of the metric are better.
    """

    def __init__(
        self,
        name: str,
        pruner: BasePruner,
        get_trial: Callable[[int], FrozenTrial],
        *,
        maximize: bool,
    ) -> None:
        self._storage = MemoryStorage()
        direction = StudyDirection.MAXIMIZE if maximize else StudyDirection.MINIMIZE
        self._study_id, self._trial_ids = self._storage.add_study(name, [direction], [])
        self._study = optuna.Study(name, self._storage, optuna.samplers.RandomSampler(), pruner)
        self._get_trial = get_trial

    def load_trials(self, trials: Sequence[FrozenTrial]) -> None:
        """Load the trials of the study, before the first decision.

        Args:
            trials: Trials of the study, numbered from 0, with the curves of the metric. The value
                of a complete trial is the last value of its curve.
        """
        for trial in trials:
            self._add_trial(_copy_with_value(trial))

    def report(self, number: int, step: int, value: float) -> None:
        """Add a value of the metric to the curve of a trial."""
        self._storage.set_trial_intermediate_value(self._get_trial_id(number), step, value)

    def drop_values(self, number: int, first_step: int) -> None:
        """Drop the values of a trial from a step on."""
        self._storage.drop_trial_intermediate_values(self._get_trial_id(number), first_step)

    def finish(self, number: int, state: TrialState) -> None:
        """Finish a trial with a state."""
        trial_id = self._get_trial_id(number)
        finished = _copy_with_value(self._storage.get_trial(trial_id), state)
        self._storage.set_trial_state_values(trial_id, finished.state, finished.values)

    def prune(self, number: int) -> bool:
        """Return whether the pruner prunes a trial."""
        trial = self._storage.get_trial(self._get_trial_id(number))
        return self._study.pruner.prune(self._study, trial)

    def _get_trial_id(self, number: int) -> int:
        """Return the id of a trial in this study; add trials that began since the last call."""
        while len(self._trial_ids) <= number:
            trial = self._get_trial(len(self._trial_ids))
            template = _copy_with_value(trial, TrialState.RUNNING)
            template.intermediate_values = {}
            self._add_trial(template)
        return self._trial_ids[number]

    def _add_trial(self, template: FrozenTrial) -> None:
        self._trial_ids.append(self._storage.create_new_trial(self._study_id, template))


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
