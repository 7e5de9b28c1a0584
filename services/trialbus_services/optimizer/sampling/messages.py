"""Messages between the optimizer and a sampler process, over their pipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from trialbus.study.spec import StudySpec


@dataclass(frozen=True)
class Suggestion:
    """The parameters of a trial to come, and the attributes that the sampler keeps on the trial.

    Attributes:
        number: The trial's number in the copy of the study.
        params: Parameters by name.
        distributions: What they were drawn from.
        system_attrs: What the sampler stored on the trial. Recorded with the real one, it lets a
            restart, or Optuna without this service, go on where the sampler is.
        user_attrs: Those of an enqueued trial.
        study_attrs: System attributes of the study that the sampler set or changed since the
            suggestion before. Where they name trials, they do it by number: see `renumber_parents`.
        waiting: The number, in the real study, of the enqueued trial this is; None for a new one.
    """

    number: int
    params: dict[str, Any]
    distributions: dict[str, BaseDistribution]
    system_attrs: dict[str, Any]
    user_attrs: dict[str, Any]
    study_attrs: dict[str, Any]
    waiting: int | None


@dataclass(frozen=True)
class Start:
    """The first message: the study as it is."""

    spec: StudySpec
    trials: Sequence[FrozenTrial]
    study_attrs: Mapping[str, Any]
    ahead: int


@dataclass(frozen=True)
class Request:
    """Another suggestion is wanted."""


@dataclass(frozen=True)
class Tell:
    """A trial ended; `number` is the one in the copy of the study."""

    number: int
    state: TrialState
    values: Sequence[float] | None
    last: tuple[int, float] | None
    constraints: Mapping[str, float]


@dataclass(frozen=True)
class WaitingTrial:
    """A waiting trial was added to the study, under its number in the study."""

    trial: FrozenTrial


@dataclass(frozen=True)
class Answer:
    """A suggestion, and the seconds it took to compute."""

    suggestion: Suggestion
    asking_s: float


@dataclass(frozen=True)
class Exhausted:
    """The sampler has nothing left to suggest."""


@dataclass(frozen=True)
class Failed:
    """The sampler raised, and the process ends."""

    error: str


ToProcess: TypeAlias = Start | Request | Tell | WaitingTrial
FromProcess: TypeAlias = Answer | Exhausted | Failed
