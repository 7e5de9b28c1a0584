"""A copy of a study in memory, for its sampler alone."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import optuna
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState

from trialbus_services.optimizer.distributions import suggest_params
from trialbus_services.optimizer.registry import build_sampler
from trialbus_services.optimizer.sampling.messages import Start, Suggestion, Tell


class _Study(optuna.Study):
    """A study whose sampler may stop it; Optuna's own can be stopped only inside `optimize`."""

    stopped = False

    def stop(self) -> None:
        """Note that the sampler has no more suggestions."""
        self.stopped = True


def reduce_trial(trial: FrozenTrial, n_objectives: int) -> FrozenTrial:
    """Return a copy of a trial, reduced to the fields that samplers read.

    Of the curve only the last point of a pruned trial is kept; with several objectives TPE refuses
    a trial that has a curve.
    """
    reduced = copy.copy(trial)
    reduced.intermediate_values = {}
    if trial.state is TrialState.PRUNED and n_objectives == 1:
        curve = trial.intermediate_values.items()
        reduced.intermediate_values = dict(sorted(curve)[-1:])
    if trial.state is not TrialState.WAITING:
        reduced.user_attrs = {}
    return reduced


class StudyCopy:
    """The study as its sampler sees it: trials, attributes and results.

    Its trials are reduced, and the pruner is left out: Hyperband means to show a sampler the trials
    of one bracket only, but the samplers of Optuna 5.0 read past that.

    Trials are numbered in the order of asking, and some samplers make use of the number. It is that
    of the real study as long as that one creates its trials in the order in which they were
    suggested, and nobody else adds any: a trial that is enqueued while suggestions made ahead of
    need are not taken yet has a higher number here, and those suggestions have lower ones.

    Args:
        start: The study as it is. Trials are numbered here in the order they come.

    Raises:
        SpecError: The sampler does not exist, or is refused by Optuna.
    """

    def __init__(self, start: Start) -> None:
        spec = start.spec
        self._params = spec.space
        self._storage = InMemoryStorage()
        directions = spec.directions
        optuna.create_study(study_name=spec.name, storage=self._storage, directions=directions)
        self._study = _Study(
            spec.name,
            self._storage,
            sampler=build_sampler(spec, len(start.trials)),
            pruner=optuna.pruners.NopPruner(),
        )
        self._id = self._storage.get_study_id_from_name(spec.name)
        self._multi_objective = len(directions) > 1
        self._waiting: dict[int, int] = {}
        for trial in start.trials:
            self.add(trial)
        for key, value in start.study_attrs.items():
            self._storage.set_study_system_attr(self._id, key, value)
        self._attrs = self._storage.get_study_system_attrs(self._id)

    @property
    def stopped(self) -> bool:
        """Whether the sampler has no more suggestions."""
        return self._study.stopped

    def add(self, trial: FrozenTrial) -> None:
        """Add a trial of the study, in any state."""
        trial_id = self._storage.create_new_trial(self._id, trial)
        if trial.state is TrialState.WAITING:
            self._waiting[self._storage.get_trial_number_from_id(trial_id)] = trial.number

    def tell(self, message: Tell) -> None:
        """Note how a trial ended."""
        trial_id = self._trial_id(message.number)
        for key, value in message.constraints.items():
            self._storage.set_trial_system_attr(trial_id, f"constraints:{key}", float(value))
        # TPE refuses a study of several objectives with a pruned trial that has a curve.
        pruned = message.state is TrialState.PRUNED and not self._multi_objective
        if pruned and message.last is not None:
            self._storage.set_trial_intermediate_value(trial_id, *message.last)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self._study.tell(message.number, message.values, message.state)

    def ask(self) -> Suggestion:
        """Suggest the parameters of a trial: the first that waits, else a new one."""
        trial = self._study.ask()
        params = suggest_params(trial, self._params)
        frozen = self._storage.get_trial(self._trial_id(trial.number))
        return Suggestion(
            number=trial.number,
            params=params,
            distributions=frozen.distributions,
            system_attrs=frozen.system_attrs,
            user_attrs=frozen.user_attrs,
            study_attrs=self._changed_attrs(),
            waiting=self._waiting.pop(trial.number, None),
        )

    def _changed_attrs(self) -> dict[str, Any]:
        before = self._attrs
        self._attrs = now = self._storage.get_study_system_attrs(self._id)
        return {
            key: value for key, value in now.items() if key not in before or before[key] != value
        }

    def _trial_id(self, number: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._id, number)
