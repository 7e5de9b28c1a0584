"""A study as its sampler sees it: every trial and how it ended, without the curves."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from trialbus.spec import StudySpec
from trialbus_services.optimizer.components import build_pruner, build_sampler
from trialbus_services.optimizer.recording.memory import Memory
from trialbus_services.optimizer.sampling.messages import Suggestion, Tell
from trialbus_services.optimizer.space import suggest


class _Study(optuna.Study):
    """A study whose sampler may stop it; Optuna's own can be stopped only inside `optimize`."""

    exhausted = False

    def stop(self) -> None:
        """Note that the sampler has nothing left to suggest."""
        self.exhausted = True


def shadow_of(trial: FrozenTrial, *, single: bool) -> FrozenTrial:
    """Return what a sampler needs of a trial.

    Samplers look at the last value of a pruned trial only; with several objectives at none, and
    would fail if there were one (`TPESampler` then asks for the study's single direction).
    """
    last = max(trial.intermediate_values.items(), default=None)
    pruned = trial.state == TrialState.PRUNED
    return FrozenTrial(
        number=trial.number,
        trial_id=trial.number,
        state=trial.state,
        value=None,
        values=trial.values,
        datetime_start=trial.datetime_start,
        datetime_complete=trial.datetime_complete,
        params=trial.params,
        distributions=trial.distributions,
        user_attrs=trial.user_attrs if trial.state == TrialState.WAITING else {},
        system_attrs=trial.system_attrs,
        intermediate_values=dict([last]) if last and pruned and single else {},
    )


class Shadow:
    """A study in memory, for its sampler alone.

    Trials are numbered in the order of asking. As long as the optimizer hands suggestions out in
    that order, and nobody enqueues, these are the real numbers; Hyperband, which deals trials into
    brackets by their numbers, and its sampler then agree.

    Args:
        spec: The study.
        trials: What it has already, as `shadow_of` gives them, in the order of their numbers.
        study_attrs: Its system attributes.

    Source:
        `optuna.study.Study.ask`, `optuna.study.Study.tell`.
    """

    def __init__(
        self, spec: StudySpec, trials: Sequence[FrozenTrial], study_attrs: Mapping[str, Any]
    ) -> None:
        storage = Memory()
        directions = [StudyDirection[direction.upper()] for direction in spec.directions]
        self._params = spec.params
        self._single = len(directions) == 1
        self._waiting = {t.number: t.number for t in trials if t.state == TrialState.WAITING}
        study_id, _ = storage.fill(spec.name, directions, list(trials))
        for key, value in study_attrs.items():
            storage.set_study_system_attr(study_id, key, value)
        self._storage = storage
        self._study_id = study_id
        self._study_attrs = dict(study_attrs)
        self._study = _Study(
            spec.name, storage, build_sampler(spec, len(trials)), build_pruner(spec.pruner)
        )

    @property
    def exhausted(self) -> bool:
        """Whether the sampler has nothing left to suggest."""
        return self._study.exhausted

    def ask(self) -> Suggestion:
        """Suggest params; raises whatever the sampler does."""
        began = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trial = self._study.ask()
            suggest(trial, self._params)
        found = self._storage.get_trial(self._id(trial.number))
        now = self._storage.get_study_system_attrs(self._study_id)
        changed = {k: v for k, v in now.items() if self._study_attrs.get(k) != v}
        self._study_attrs.update(changed)
        return Suggestion(
            number=found.number,
            params=dict(found.params),
            distributions=dict(found.distributions),
            system_attrs=dict(found.system_attrs),
            user_attrs=dict(found.user_attrs),
            study_attrs=changed,
            waiting=self._waiting.pop(found.number, None),
            took_s=time.perf_counter() - began,
        )

    def tell(self, ended: Tell) -> None:
        """Take in how a trial ended; one that is not known, or ended before, is passed over."""
        trials = self._study.get_trials(deepcopy=False)
        if ended.number >= len(trials) or trials[ended.number].state.is_finished():
            return
        trial_id = self._id(ended.number)
        if ended.last and self._single and ended.state == TrialState.PRUNED:
            self._storage.set_trial_intermediate_value(trial_id, *ended.last)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trial = optuna.Trial(self._study, trial_id)
            for name, value in ended.constraints.items():
                trial.set_constraint(name, value)
            self._study.tell(ended.number, ended.values, ended.state)

    def enqueue(self, trial: FrozenTrial) -> None:
        """Take in a trial that waits with params that somebody chose."""
        number = len(self._study.get_trials(deepcopy=False))
        self._waiting[number] = trial.number
        self._study.add_trial(trial)

    def _id(self, number: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._study_id, number)
