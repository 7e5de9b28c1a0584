"""StudyCopy: a copy of a study in memory, which only the study's sampler reads."""

from __future__ import annotations

import copy
import itertools
import json
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from trialbus_services.optimizer.distributions import get_single_value, suggest_params
from trialbus_services.optimizer.enumerating_samplers import BruteForce, Grid
from trialbus_services.optimizer.registry import build_sampler, is_enumerating
from trialbus_services.optimizer.sampling.checked_sampler import CheckedSampler, SamplerFaultError
from trialbus_services.optimizer.sampling.copy_storage import CopyStorage
from trialbus_services.optimizer.sampling.coverage import Coverage, get_duplicate_policy
from trialbus_services.optimizer.sampling.messages import (
    ParamAnswer,
    ParamRequest,
    ParamUse,
    Skipped,
    Start,
    Suggestion,
    Tell,
)

_TRIES = 100  # suggestions of the sampler for a trial, before a point is drawn
_TRIES_LISTED = 20  # the same where the points are finite and few


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

    A suggestion that violates a constraint over params, or whose params were tried before where
    that is not wanted, leaves no trace: the sampler is asked again for the same trial.

    Args:
        start: Present state of the study; its trials are numbered in the order of the sequence.

    Raises:
        SpecError: The sampler does not exist, or is refused by Optuna.
    """

    def __init__(self, start: Start) -> None:
        spec = start.spec
        self._spec = spec
        self._params = spec.space
        self._storage = CopyStorage()
        directions = spec.directions
        optuna.create_study(study_name=spec.name, storage=self._storage, directions=directions)
        n_before = sum(trial.state is not TrialState.WAITING for trial in start.trials)
        sampler = build_sampler(spec, n_before)
        self._grid = sampler if isinstance(sampler, Grid) else None
        self._is_brute_force = isinstance(sampler, BruteForce)
        self._study = _Study(
            spec.name,
            self._storage,
            sampler=CheckedSampler(sampler, spec.sampler.type),
            pruner=optuna.pruners.NopPruner(),
        )
        self._study_id = self._storage.get_study_id_from_name(spec.name)
        self._is_multi_objective = len(directions) > 1
        self._duplicates = get_duplicate_policy(spec)
        self._covers = self._duplicates == "skip" or is_enumerating(spec.sampler)
        points = self._grid.list_points() if self._grid else None
        self._coverage = Coverage(spec, points)
        self._grid_ids = {self._coverage.points.locate(p): i for i, p in enumerate(points or [])}
        #: Numbers of waiting trials in the study, by their numbers in the copy.
        self._waiting: dict[int, int] = {}
        for index, trial in enumerate(start.trials):
            if trial.state is not TrialState.WAITING:  # has the point before a trial that waits
                self._coverage.take(trial.params, index)
        for trial in start.trials:
            self.add_trial(trial)
        for key, value in start.study_attrs.items():
            self._storage.set_study_system_attr(self._study_id, key, value)
        self._attrs = self._storage.get_study_system_attrs(self._study_id)

    @property
    def is_exhausted(self) -> bool:
        """Whether no more trials can be suggested."""
        if self._waiting:
            return False
        return self._study.is_stopped or (self._covers and self._coverage.n_free == 0)

    def add_trial(self, trial: FrozenTrial) -> None:
        """Add a trial of the study, in any state."""
        is_waiting = trial.state is TrialState.WAITING
        params = trial.system_attrs.get("fixed_params", {}) if is_waiting else trial.params
        if self._is_brute_force and not is_waiting:
            trial = self._normalize_trial(trial)
        trial_id = self._storage.create_new_trial(self._study_id, trial)
        number = self._storage.get_trial_number_from_id(trial_id)
        if is_waiting:
            self._waiting[number] = trial.number
        elif self._is_brute_force and not trial.params:
            self._storage.hide_trial(trial_id)
        self._coverage.take(params, number)

    def skip_waiting_trials(self) -> Iterator[Skipped]:
        """Skip the waiting trials that would come next and are not to run."""
        while self._waiting:
            number = next(iter(self._waiting))
            trial_id = self._get_trial_id(number)
            reason = self._find_reason_to_skip(number, self._storage.get_trial(trial_id))
            if reason is None:
                return
            self._storage.hide_trial(trial_id)
            yield Skipped(self._waiting.pop(number), reason)

    def tell(self, message: Tell) -> None:
        """Tell the sampler the result of a trial."""
        trial_id = self._get_trial_id(message.number)
        for key, value in message.constraints.items():
            self._storage.set_trial_system_attr(trial_id, f"constraints:{key}", float(value))
        # TPE refuses a study of several objectives with a pruned trial that has a curve.
        keeps_curve = message.state is TrialState.PRUNED and not self._is_multi_objective
        if keeps_curve and message.last is not None:
            self._storage.set_trial_intermediate_value(trial_id, *message.last)
        self._tell(message.number, message.values, message.state)

    def ask(self) -> Suggestion:
        """Suggest the params of a trial: the first waiting trial, else a new trial.

        Raises:
            SamplerFaultError: The sampler failed, or no params meet the constraints.
        """
        trial = self._study.ask()
        waiting = self._waiting.pop(trial.number, None)
        relative = self._suggest_relative(trial) if self._spec.define_by_run else {}
        if not self._spec.define_by_run:
            self._suggest(trial)
        frozen = self._storage.get_trial(self._get_trial_id(trial.number))
        reused = self._find_reusable(frozen)
        self._coverage.take(frozen.params, frozen.number)
        if reused is not None:
            self._tell(frozen.number, reused.values, TrialState.COMPLETE)
        study_attrs = self._read_changed_attrs()
        self._check_attributes({**frozen.system_attrs, **study_attrs})
        return Suggestion(
            number=frozen.number,
            # As they are in the storage: a sampler may return numpy's numbers.
            params=frozen.params,
            distributions=frozen.distributions,
            system_attrs=frozen.system_attrs,
            user_attrs=frozen.user_attrs,
            study_attrs=study_attrs,
            waiting=waiting,
            relative=relative,
            reused=None if reused is None else reused.number,
        )

    def suggest_param(self, request: ParamRequest) -> ParamAnswer:
        """Suggest a value for a param that a running trial asks for.

        Raises:
            SamplerFaultError: The sampler failed.
        """
        name, distribution = request.name, request.distribution
        trial_id = self._get_trial_id(request.number)
        try:
            self._storage.check_param(self._study_id, name, distribution)
            trial = self._storage.get_trial(trial_id)
            fixed: Mapping[str, Any] = trial.system_attrs.get("fixed_params", {})
            if name in trial.params:
                value = trial.params[name]
            elif name in fixed:
                value = fixed[name]
            elif distribution.single():
                value = get_single_value(distribution)
            else:
                value = self._study.sampler.sample_independent(
                    self._study, trial, name, distribution
                )
            internal = distribution.to_internal_repr(value)
            self._storage.set_trial_param(trial_id, name, internal, distribution)
        except ValueError as error:
            return ParamAnswer(request.number, name, None, str(error))
        return ParamAnswer(request.number, name, distribution.to_external_repr(internal), None)

    def use_param(self, message: ParamUse) -> None:
        """Give a running trial the value of a param that the trial uses."""
        trial_id = self._get_trial_id(message.number)
        internal = message.distribution.to_internal_repr(message.value)
        self._storage.set_trial_param(trial_id, message.name, internal, message.distribution)

    def _suggest_relative(self, trial: optuna.Trial) -> dict[str, tuple[Any, BaseDistribution]]:
        """Return the values that the sampler chooses together, for the trial's params."""
        attrs = self._storage.get_trial(self._get_trial_id(trial.number)).system_attrs
        fixed: Mapping[str, Any] = attrs.get("fixed_params", {})
        params = trial.relative_params
        space = trial.relative_search_space or {}
        return {
            name: (value, space[name])
            for name, value in params.items()
            if name in space and name not in fixed
        }

    def _suggest(self, trial: optuna.Trial) -> None:
        """Suggest the params of a trial that is in the storage, until they can be handed out."""
        trial_id = self._get_trial_id(trial.number)
        attrs = self._storage.get_trial(trial_id).system_attrs
        fixed: Mapping[str, Any] = attrs.get("fixed_params", {})
        if self._coverage.points.complete(fixed) is not None:  # a person asked for this trial
            suggest_params(trial, self._params)
            self._describe_point(trial_id)
            return
        if self._grid is not None:
            self._set_point(trial_id, fixed)
            self._describe_point(trial_id)
            return
        for n_tries in itertools.count(1):
            suggest_params(trial, self._params)
            params = self._storage.get_trial(trial_id).params
            self._check_range(params, fixed)
            if self._is_acceptable(params, trial.number):
                break
            self._storage.clear_params(trial_id)
            if n_tries >= (_TRIES if self._coverage.n_points is None else _TRIES_LISTED):
                self._set_point(trial_id, fixed)
                break
            trial = optuna.Trial(self._study, trial_id)

    def _is_acceptable(self, params: Mapping[str, Any], number: int) -> bool:
        if self._coverage.find_violated(params) is not None:
            return False
        taker = self._coverage.find_taker(params)
        if taker is None or taker == number:
            return True
        if self._duplicates == "reuse" and not self._covers:
            return self._is_complete(taker)
        return not self._covers

    def _set_point(self, trial_id: int, fixed: Mapping[str, Any]) -> None:
        """Give a trial the params of a point, without asking the sampler."""
        is_free = self._covers or self._duplicates != "allow"
        params = self._coverage.find_point(fixed, is_free=is_free)
        if params is None and not self._covers:
            params = self._coverage.find_point(fixed, is_free=False)
        if params is None:
            constraints = ", ".join(map(repr, self._spec.constraints))
            raise SamplerFaultError(
                f"no params were found that meet study.constraints ({constraints}) and were not "
                "tried before (expected constraints that more of the search space meets)"
            )
        for name, value in params.items():
            distribution = self._coverage.points.distributions[name]
            self._storage.set_trial_param(
                trial_id, name, distribution.to_internal_repr(value), distribution
            )

    def _describe_point(self, trial_id: int) -> None:
        """Set the attributes from which plain Optuna's grid goes on."""
        if self._grid is None:
            return
        point = self._coverage.points.locate(self._storage.get_trial(trial_id).params)
        if point in self._grid_ids:
            for key, value in self._grid.describe_point(self._grid_ids[point]).items():
                self._storage.set_trial_system_attr(trial_id, key, value)

    def _find_reason_to_skip(self, number: int, trial: FrozenTrial) -> str | None:
        """Return why a waiting trial is not to run, or None."""
        fixed = trial.system_attrs.get("fixed_params", {})
        params = self._coverage.points.complete(fixed)
        violated = self._coverage.find_violated({**self._spec.fixed, **fixed})
        if violated is not None:
            return f"{fixed} violates {violated}"
        if params is not None and self._duplicates == "skip":
            taker = self._coverage.find_taker(params)
            if taker not in (None, number):
                return f"{fixed} was tried before (study.duplicates=skip)"
        if params is None and (self._spec.constraints or self._covers):
            is_free = self._covers and self._coverage.n_points is not None
            if self._coverage.find_point(fixed, is_free=is_free) is None:
                return f"no params with {fixed} are left that meet study.constraints"
        return None

    def _find_reusable(self, trial: FrozenTrial) -> FrozenTrial | None:
        """Return the complete trial whose values a trial gets instead of running, or None."""
        if self._duplicates != "reuse":
            return None
        taker = self._coverage.find_taker(trial.params)
        if taker in (None, trial.number) or not self._is_complete(taker):
            return None
        return self._storage.get_trial(self._get_trial_id(taker))

    def _is_complete(self, number: int) -> bool:
        return self._storage.get_trial(self._get_trial_id(number)).state is TrialState.COMPLETE

    def _check_range(self, params: Mapping[str, Any], fixed: Mapping[str, Any]) -> None:
        """Check that the sampler's values are in the search space, as Optuna does not."""
        name = self._coverage.points.find_outside(
            {name: value for name, value in params.items() if name not in fixed}
        )
        if name is not None:
            raise SamplerFaultError(
                f"the sampler {self._spec.sampler.type} returned {params[name]!r} for the param "
                f"{name} (expected a value of {self._params[name]})"
            )

    def _check_attributes(self, attrs: Mapping[str, Any]) -> None:
        """Check that a storage can keep the attributes that the sampler set."""
        for key, value in attrs.items():
            try:
                json.dumps(value)
            except (TypeError, ValueError) as error:
                raise SamplerFaultError(
                    f"the sampler {self._spec.sampler.type} set the system attribute {key!r} to "
                    f"{value!r}, which no storage can keep: {error} (expected plain data)"
                ) from None

    def _normalize_trial(self, trial: FrozenTrial) -> FrozenTrial:
        """Return a trial with the params of a point in the order of the space, or without params.

        Optuna's `BruteForceSampler` fails on all other trials.
        """
        params = self._coverage.points.complete(trial.params) or {}
        normalized = copy.copy(trial)
        distributions = self._coverage.points.distributions
        normalized.params = params
        normalized.distributions = {name: distributions[name] for name in params}
        return normalized

    def _tell(self, number: int, values: Any, state: TrialState) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self._study.tell(number, values, state)

    def _read_changed_attrs(self) -> dict[str, Any]:
        before = self._attrs
        self._attrs = attrs = self._storage.get_study_system_attrs(self._study_id)
        return {
            key: value for key, value in attrs.items() if key not in before or before[key] != value
        }

    def _get_trial_id(self, number: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._study_id, number)
