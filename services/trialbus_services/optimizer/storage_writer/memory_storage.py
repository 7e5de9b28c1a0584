"""MemoryStorage: Optuna's storage in memory, which also loads studies and amends ended trials."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial


class MemoryStorage(InMemoryStorage):
    """An `InMemoryStorage` that loads studies, amends ended trials and reports in constant time.

    `get_trial` and `get_all_trials(deepcopy=False)` return the storage's trials: the intermediate
    values of a running trial grow.
    """

    def add_study(
        self, study_name: str, directions: Sequence[StudyDirection], trials: list[FrozenTrial]
    ) -> tuple[int, list[int]]:
        """Add a study with trials numbered from 0; return the study's id and the trials' ids."""
        with self._lock:
            study_id = InMemoryStorage.create_new_study(self, directions, study_name)
            study = self._studies[study_id]
            first = self._max_trial_id + 1
            self._max_trial_id += len(trials)
            for trial_id, trial in enumerate(trials, first):
                trial._trial_id = trial_id  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
                self._trial_id_to_study_id_and_number[trial_id] = (study_id, trial.number)
                study.trials.append(trial)
                study.param_distribution.update(trial.distributions)
                self._update_cache(trial_id, study_id)
            return study_id, list(range(first, first + len(trials)))

    def set_trial_intermediate_value(
        self, trial_id: int, step: int, intermediate_value: float
    ) -> None:
        """Set an intermediate value, in a time that does not depend on the length of the curve."""
        with self._lock:
            trial = self._get_trial(trial_id)
            self.check_trial_is_updatable(trial_id, trial.state)
            trial.intermediate_values[step] = intermediate_value

    def drop_trial_intermediate_values(self, trial_id: int, first_step: int) -> None:
        """Drop the intermediate values of a trial from a step on."""
        with self._lock:
            self._drop_values(trial_id, first_step)

    def replace_curve(self, trial_id: int, curve: Mapping[int, float]) -> None:
        """Replace the intermediate values of a trial, in memory only."""
        with self._lock:
            trial = copy.copy(self._get_trial(trial_id))
            trial.intermediate_values = dict(curve)
            self._set_trial(trial_id, trial)

    def amend_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Set a user attribute, also of a trial that has ended."""
        with self._lock:
            trial = copy.copy(self._get_trial(trial_id))
            trial.user_attrs = {**trial.user_attrs, key: value}
            self._set_trial(trial_id, trial)

    def amend_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Set a system attribute, also of a trial that has ended."""
        with self._lock:
            trial = copy.copy(self._get_trial(trial_id))
            trial.system_attrs = {**trial.system_attrs, key: value}
            self._set_trial(trial_id, trial)

    def _drop_values(self, trial_id: int, first_step: int) -> set[int]:
        trial = self._get_trial(trial_id)
        self.check_trial_is_updatable(trial_id, trial.state)
        dropped = {step for step in trial.intermediate_values if step >= first_step}
        for step in dropped:
            del trial.intermediate_values[step]
        return dropped
