"""Suggestions of plain Optuna in a study with every kind of end of a trial, for comparison."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.samplers import BaseSampler, BruteForceSampler, GridSampler
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState

from trialbus import StudySpec
from trialbus_services.optimizer.distributions import suggest_params
from trialbus_services.optimizer.enumerating_samplers import BruteForce, Grid
from trialbus_services.optimizer.registry import build_pruner, build_sampler

_STEPS = 9
#: Id of a trial, less its number.
ID_OFFSET = 3


@dataclass(frozen=True)
class TrialAsked:
    """A trial was asked for."""

    trial: FrozenTrial
    study_attrs: dict[str, Any]


@dataclass(frozen=True)
class TrialTold:
    """A trial ended."""

    number: int
    state: TrialState
    values: list[float] | None
    last: tuple[int, float] | None


@dataclass(frozen=True)
class SamplerRestarted:
    """The sampler was built anew for the study at that time."""

    trials: list[FrozenTrial]
    study_attrs: dict[str, Any]


@dataclass
class PlainOptuna:
    """A study that Optuna alone runs, `n_open` trials at a time.

    Its trials are pruned by the study's pruner, one in seven fails, and every value follows from
    the parameters. In its storage no trial's id is its number. `define` suggests the params by
    Optuna's own means, for spaces with conditions.
    """

    spec: StudySpec
    n_open: int = 3
    define: Callable[[optuna.Trial], object] | None = None
    restart_at: int | None = None
    stopped: bool = field(default=False, init=False)

    def run(self) -> Iterator[TrialAsked | TrialTold | SamplerRestarted]:
        """Yield the events of the study until all trials ended or the sampler stopped the study."""
        storage = InMemoryStorage()
        other = optuna.create_study(storage=storage)
        for _ in range(ID_OFFSET):
            other.ask()
        directions = self.spec.directions
        optuna.create_study(study_name=self.spec.name, storage=storage, directions=directions)
        study = _Study(
            self.spec.name,
            storage,
            sampler=_build_plain_sampler(self.spec),
            pruner=build_pruner(self.spec.pruner),
        )
        study_id = storage.get_study_id_from_name(self.spec.name)
        running: list[optuna.Trial] = []
        n_asked = 0
        while True:
            if n_asked == self.restart_at:
                study.sampler = _build_plain_sampler(self.spec, n_asked)
                self.restart_at = None
                yield SamplerRestarted(
                    study.get_trials(), copy.deepcopy(storage.get_study_system_attrs(study_id))
                )
            if len(running) < self.n_open and n_asked < self.spec.n_trials and not study.stopped:
                trial = study.ask()
                if self.define:
                    self.define(trial)
                else:
                    suggest_params(trial, self.spec.params)
                running.append(trial)
                n_asked += 1
                frozen = copy.deepcopy(study.get_trials(deepcopy=False)[trial.number])
                yield TrialAsked(frozen, copy.deepcopy(storage.get_study_system_attrs(study_id)))
            elif running:
                trial = running.pop(n_asked % len(running))
                yield self._finish(study, trial)
            else:
                self.stopped = study.stopped
                return

    def _finish(self, study: optuna.Study, trial: optuna.Trial) -> TrialTold:
        values = [compute_value(trial.params, index) for index in range(len(self.spec.objectives))]
        state, last = TrialState.COMPLETE, None
        if len(values) == 1:
            for step in range(_STEPS):
                last = step, values[0] + (trial.number % 4) / (step + 1)
                trial.report(last[1], step)
                if trial.should_prune():
                    state = TrialState.PRUNED
                    break
        elif trial.number % 5 == 3:
            state = TrialState.PRUNED
        if trial.number % 7 == 5:
            state = TrialState.FAIL
        told_values = values if state is TrialState.COMPLETE else None
        study.tell(trial.number, told_values, state)
        return TrialTold(trial.number, state, told_values, last)


def _build_plain_sampler(spec: StudySpec, n_before: int = 0) -> BaseSampler:
    """Build a sampler whose bookkeeping is Optuna's own."""
    sampler = build_sampler(spec, n_before)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        match sampler:
            case Grid():
                space: dict[str, list[Any]] = sampler.describe_point(0)["search_space"]
                return GridSampler(space, seed=spec.seed)
            case BruteForce():
                return BruteForceSampler(seed=spec.seed)
            case _:
                return sampler


class _Study(optuna.Study):
    stopped = False

    def stop(self) -> None:
        self.stopped = True


def compute_value(params: dict[str, Any], index: int) -> float:
    """Return an objective value of parameters."""
    numbers = [float(value) if isinstance(value, int | float) else 1.0 for value in params.values()]
    return sum((number - 0.3 - index) ** 2 for number in numbers)
