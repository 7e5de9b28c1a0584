"""CopyStorage: Optuna's storage in memory, in which trials can be hidden and suggested again."""

from __future__ import annotations

import copy
from collections.abc import Container

from optuna.distributions import BaseDistribution, check_distribution_compatibility
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState


class CopyStorage(InMemoryStorage):
    """An `InMemoryStorage` of which a sampler sees what a study shows."""

    def __init__(self) -> None:
        super().__init__()
        self._hidden: set[int] = set()

    def hide_trial(self, trial_id: int) -> None:
        """Hide a trial from the sampler; the trial keeps its number."""
        self._hidden.add(trial_id)

    def check_param(self, study_id: int, name: str, distribution: BaseDistribution) -> None:
        """Check that a distribution is compatible with the param of the same name in the study.

        Raises:
            ValueError: The distribution is of another kind, or has other choices.
        """
        known = self._studies[study_id].param_distribution.get(name)
        if known is not None:
            check_distribution_compatibility(known, distribution)

    def clear_params(self, trial_id: int) -> None:
        """Take the params from a running trial, so that params can be suggested again."""
        with self._lock:
            trial = copy.copy(self._get_trial(trial_id))
            trial.params, trial.distributions = {}, {}
            self._set_trial(trial_id, trial)

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,  # noqa: FBT001, FBT002 - Optuna's signature
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        """Return the trials of a study that are not hidden."""
        trials = super().get_all_trials(study_id, deepcopy, states)
        if not self._hidden:
            return trials
        return [trial for trial in trials if trial._trial_id not in self._hidden]  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
