"""What the optimizer and a sampler's process say to each other; pickled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState


@dataclass(frozen=True)
class Ask:
    """One suggestion more is wanted."""


@dataclass(frozen=True)
class Tell:
    """A trial ended. `number` is the shadow's, `last` the last step and its value."""

    number: int
    state: TrialState
    values: list[float] | None
    last: tuple[int, float] | None
    constraints: dict[str, float]


@dataclass(frozen=True)
class Enqueue:
    """A trial waits that somebody else chose the params of; its number is the real study's."""

    trial: FrozenTrial


@dataclass(frozen=True)
class Close:
    """Nothing more is wanted."""


@dataclass(frozen=True)
class Suggestion:
    """What the sampler suggests for a trial.

    Attributes:
        number: The trial's number in the shadow study.
        params: Value by name.
        distributions: What each was sampled from.
        system_attrs: What the sampler keeps at the trial, to be recorded with it, so that a
            restart, and plain Optuna, can go on from there.
        user_attrs: Those of an enqueued trial.
        study_attrs: The study's system attributes that the sampler set since the last suggestion.
        waiting: Number, in the real study, of the enqueued trial that this is; None for a new one.
        took_s: Seconds that sampling took.
    """

    number: int
    params: dict[str, Any]
    distributions: dict[str, BaseDistribution]
    system_attrs: dict[str, Any]
    user_attrs: dict[str, Any]
    study_attrs: dict[str, Any]
    waiting: int | None
    took_s: float


@dataclass(frozen=True)
class Exhausted:
    """The sampler has nothing left that it did not suggest."""


@dataclass(frozen=True)
class Failed:
    """The sampler failed; the end of its traceback."""

    error: str


ToProcess: TypeAlias = Ask | Tell | Enqueue | Close
FromProcess: TypeAlias = Suggestion | Exhausted | Failed
