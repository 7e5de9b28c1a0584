"""Objective: an objective function of Optuna, run for a trial of the bus.

The function gets an `optuna.Trial` as it is. Behind that trial are a storage, a sampler and a
pruner of Optuna's interfaces, for this trial alone: what Optuna writes into the storage is
published, what Optuna asks the sampler for is asked over the bus, and the pruner's answer is the
decision of the study's pruner.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

import trialbus
from trialbus.errors import SpecError
from trialbus.messages import events
from trialbus_services.optimizer.distributions import make_param

_DECISION_S = 1.0  # that a report waits at most for the decision of the study's pruner
_CONSTRAINT = "constraints:"


def run_objective(function: Callable[[optuna.Trial], Any], trial: trialbus.Trial) -> Any:
    """Call an objective function of Optuna for a trial, and return the objective values.

    Args:
        function: Objective function, as `study.optimize` takes it.
        trial: Trial of a study with `define_by_run`.

    Raises:
        optuna.TrialPruned: The function was told to prune the trial.
        trialbus.TrialPruned: The trial is to end.
    """
    return function(make_optuna_trial(trial))


def make_optuna_trial(trial: trialbus.Trial) -> optuna.Trial:
    """Return an Optuna trial whose methods speak for a trial of the bus.

    Its `study` knows directions, sampler and pruner of the interfaces, and no other trial.

    Args:
        trial: Trial of a study with `define_by_run`.

    Raises:
        SpecError: The study declares its params, which the trial has in `params`.

    Example:
        >>> with trialbus.attach() as trial:  # doctest: +SKIP
        ...     trial.complete(objective(make_optuna_trial(trial)))
    """
    define_by_run = trial.define_by_run
    if define_by_run is None:
        raise SpecError(
            "study.define_by_run",
            f"false, so that trial.params has the params of {trial.study!r}; an objective function "
            "of Optuna asks for them itself (expected true, and no study.params)",
        )
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = _TrialStorage(trial, define_by_run)
    directions = [StudyDirection[o.direction.upper()] for o in define_by_run.objectives]
    study_id = storage.create_new_study(directions, trial.study)
    study = optuna.Study(trial.study, storage, _BusSampler(storage), _BusPruner(trial, storage))
    return _ObjectiveTrial(study, storage.create_new_trial(study_id))


class _ObjectiveTrial(optuna.Trial):
    """An Optuna trial that also refuses what Optuna would understand in another way."""

    def report(self, value: float, step: int) -> None:
        """Report a value for a step, as Optuna does, and refuse the order of trialbus.

        Raises:
            TypeError: `step` is not an integer, or `value` not a number.
        """
        if isinstance(value, Mapping) or not _is_integer(step):
            raise TypeError(
                f"report({value!r}, {step!r}): expected the value and then an integer step, as in "
                "Optuna; write report(0.5, step=3)"
            )
        super().report(value, step)


def _is_integer(step: Any) -> bool:
    try:
        operator.index(step)
    except TypeError:
        return isinstance(step, float) and step.is_integer()
    return True


class _TrialStorage(InMemoryStorage):
    """A storage of one trial, which publishes what is written about the trial."""

    def __init__(self, trial: trialbus.Trial, define_by_run: events.DefineByRun) -> None:
        super().__init__()
        self._trial = trial
        self._metric = define_by_run.objectives[0].metric
        self._wait_s = _DECISION_S if define_by_run.has_pruner else 0.0
        self._values: dict[str, Any] = {}
        #: Whether the function has learnt of the newest report's decision.
        self.is_decision_known = True

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """Create the trial, with the number that the trial has in its study."""
        trial_id = super().create_new_trial(study_id, template_trial)
        self.get_trial(trial_id).number = self._trial.number
        return trial_id

    def get_trial_number_from_id(self, trial_id: int) -> int:
        """Return the number that the trial has in its study."""
        return self._trial.number

    def request_param(self, name: str, distribution: BaseDistribution) -> Any:
        """Request the value of a param, once for each name."""
        if name not in self._values:
            self._values[name] = self._trial.request_param(name, make_param(distribution))
        return self._values[name]

    def set_trial_param(
        self,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
    ) -> None:
        """Set a param; of a range with a single value, which no sampler is asked for, too."""
        self.request_param(param_name, distribution)
        super().set_trial_param(trial_id, param_name, param_value_internal, distribution)

    def set_trial_intermediate_value(
        self, trial_id: int, step: int, intermediate_value: float
    ) -> None:
        """Report a value, and wait for the pruner's decision if the study has a pruner.

        Raises:
            TrialPruned: The function has reported before without asking whether to prune, and was
                to be pruned then.
        """
        was_pruned = self._trial.prune_command is not None and not self.is_decision_known
        self.is_decision_known = False
        try:
            self._trial.report(step, {self._metric: intermediate_value}, wait=self._wait_s)
        except trialbus.TrialPruned:
            if was_pruned:
                raise
        super().set_trial_intermediate_value(trial_id, step, intermediate_value)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Set a user attribute of the trial, here and in the study."""
        self._trial.set_user_attr(key, value)
        super().set_trial_user_attr(trial_id, key, value)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Set a system attribute; a constraint is set in the study, too."""
        if key.startswith(_CONSTRAINT):
            self._trial.set_constraint(key.removeprefix(_CONSTRAINT), value)
        super().set_trial_system_attr(trial_id, key, value)


class _BusSampler(BaseSampler):
    """A sampler that asks the study's sampler over the bus."""

    def __init__(self, storage: _TrialStorage) -> None:
        self._storage = storage

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return nothing: what the sampler chose together is known to the trial of the bus."""
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return nothing: what the sampler chose together is known to the trial of the bus."""
        return {}

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Return the value that the study's sampler suggests."""
        return self._storage.request_param(param_name, param_distribution)


class _BusPruner(BasePruner):
    """A pruner that knows the decision of the study's pruner."""

    def __init__(self, trial: trialbus.Trial, storage: _TrialStorage) -> None:
        self._trial = trial
        self._storage = storage

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Return whether the study's pruner, or a person, has pruned the trial."""
        self._storage.is_decision_known = True
        return self._trial.should_prune()
