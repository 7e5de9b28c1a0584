"""StudyCopy: a copy of a study in memory, which only the study's sampler reads."""

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
    """A study that a sampler can stop; in Optuna, `stop` works inside `optimize` only."""

    is_stopped = False

    def stop(self) -> None:
        """Mark the study as stopped: the sampler has no more suggestions."""
        self.is_stopped = True


def reduce_trial(trial: FrozenTrial, n_objectives: int) -> FrozenTrial:
    """Return a copy of a trial, reduced to the fields that samplers read.

    Samplers read the last point of a pruned trial's curve, and no other point. With several
    objectives TPE refuses a trial that has a curve.
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
    """A copy of a study for the sampler: reduced trials, system attributes and results.

    The pruner is left out: Hyperband tries to show a sampler the trials of one bracket only, but
    the samplers of Optuna 5.0 read the storage past the filter.

    Trials are numbered in the order of their suggestions, and some samplers use the number. The
    number is the same as in the study, as long as the study creates trials in the order of their
    suggestions and nobody else adds trials. If a trial is enqueued while suggestions computed ahead
    of need are not taken yet, the trial gets a higher number here than in the study.

    Args:
        start: Present state of the study; its trials are numbered in the order of the sequence.

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
        self._study_id = self._storage.get_study_id_from_name(spec.name)
        self._is_multi_objective = len(directions) > 1
        #: Numbers of waiting trials in the study, by their numbers in the copy.
        self._waiting: dict[int, int] = {}
        for trial in start.trials:
            self.add_trial(trial)
        for key, value in start.study_attrs.items():
            self._storage.set_study_system_attr(self._study_id, key, value)
        self._attrs = self._storage.get_study_system_attrs(self._study_id)

    @property
    def is_stopped(self) -> bool:
        """Whether the sampler has no more suggestions."""
        return self._study.is_stopped

    def add_trial(self, trial: FrozenTrial) -> None:
        """Add a trial of the study, in any state."""
        trial_id = self._storage.create_new_trial(self._study_id, trial)
        if trial.state is TrialState.WAITING:
            self._waiting[self._storage.get_trial_number_from_id(trial_id)] = trial.number

    def tell(self, message: Tell) -> None:
        """Tell the sampler the result of a trial."""
        trial_id = self._get_trial_id(message.number)
        for key, value in message.constraints.items():
            self._storage.set_trial_system_attr(trial_id, f"constraints:{key}", float(value))
        # TPE refuses a study of several objectives with a pruned trial that has a curve.
        keeps_curve = message.state is TrialState.PRUNED and not self._is_multi_objective
        if keeps_curve and message.last is not None:
            self._storage.set_trial_intermediate_value(trial_id, *message.last)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self._study.tell(message.number, message.values, message.state)

    def ask(self) -> Suggestion:
        """Suggest the params of a trial: the first waiting trial, else a new trial."""
        trial = self._study.ask()
        params = suggest_params(trial, self._params)
        frozen = self._storage.get_trial(self._get_trial_id(trial.number))
        return Suggestion(
            number=trial.number,
            params=params,
            distributions=frozen.distributions,
            system_attrs=frozen.system_attrs,
            user_attrs=frozen.user_attrs,
            study_attrs=self._read_changed_attrs(),
            waiting=self._waiting.pop(trial.number, None),
        )

    def _read_changed_attrs(self) -> dict[str, Any]:
        before = self._attrs
        self._attrs = attrs = self._storage.get_study_system_attrs(self._study_id)
        return {
            key: value for key, value in attrs.items() if key not in before or before[key] != value
        }

    def _get_trial_id(self, number: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._study_id, number)
