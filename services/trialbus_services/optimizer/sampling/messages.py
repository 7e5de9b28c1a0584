"""Messages between the optimizer and a sampler process, over a pipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from trialbus.study.spec import StudySpec


@dataclass(frozen=True)
class Suggestion:
    """Params of a trial to create, and the attributes that the sampler keeps on the trial."""

    number: int
    """Number of the trial in the copy of the study."""
    params: dict[str, Any]
    """Values by param."""
    distributions: dict[str, BaseDistribution]
    """Distributions by param."""
    system_attrs: dict[str, Any]
    """Attributes that the sampler set on the trial.

    With them in the storage, a restarted sampler, or Optuna without trialbus, continues the study.
    """
    user_attrs: dict[str, Any]
    """User attributes of an enqueued trial; empty for a new trial."""
    study_attrs: dict[str, Any]
    """System attributes of the study that the sampler changed since the last suggestion.

    Trials in them are named by number, not by id: see `renumber_parents`.
    """
    waiting: int | None
    """Number, in the study, of the enqueued trial to run; None for a new trial."""
    relative: dict[str, tuple[Any, BaseDistribution]] = field(
        default_factory=dict[str, tuple[Any, BaseDistribution]]
    )
    """Values that the sampler chose together for params that the training may ask for; empty where
    the study declares its params."""
    reused: int | None = None
    """Earlier trial with the same params whose values the trial gets; None to run the trial.

    A number in the copy of the study; the suggester returns the number in the study.
    """


@dataclass(frozen=True)
class Start:
    """The first message, with the present state of the study."""

    spec: StudySpec
    trials: Sequence[FrozenTrial]
    study_attrs: Mapping[str, Any]
    ahead: int
    """Number of suggestions to compute beyond the requested suggestions."""


@dataclass(frozen=True)
class Request:
    """A request for another suggestion."""


@dataclass(frozen=True)
class Tell:
    """The result of a trial that ended."""

    number: int
    """Number of the trial in the copy of the study."""
    state: TrialState
    values: Sequence[float] | None
    """Objective values of a complete trial."""
    last: tuple[int, float] | None
    """Last reported step and its value."""
    constraints: Mapping[str, float]
    """Violations by constraint."""


@dataclass(frozen=True)
class WaitingTrial:
    """A waiting trial that was added to the study."""

    trial: FrozenTrial


@dataclass(frozen=True)
class ParamRequest:
    """A request for the value of a param that a running trial asks for."""

    number: int
    """Number of the trial in the copy of the study."""
    name: str
    distribution: BaseDistribution


@dataclass(frozen=True)
class ParamUse:
    """A param of a running trial whose value is known."""

    number: int
    """Number of the trial in the copy of the study."""
    name: str
    distribution: BaseDistribution
    value: Any


@dataclass(frozen=True)
class ParamAnswer:
    """The answer to a `ParamRequest`."""

    number: int
    """Number of the trial in the copy of the study."""
    name: str
    value: Any
    error: str | None
    """Why the study cannot have the param; None for a value."""


@dataclass(frozen=True)
class Answer:
    """A suggestion, with the time of the computation."""

    suggestion: Suggestion
    elapsed_s: float
    """Seconds that the sampler took."""


@dataclass(frozen=True)
class Exhausted:
    """The sampler has no more suggestions."""

    n_enqueued: int
    """Number of waiting trials that the process had received since its start."""


@dataclass(frozen=True)
class Skipped:
    """A waiting trial is not going to run, and keeps waiting."""

    number: int
    """Number of the trial in the study."""
    reason: str


@dataclass(frozen=True)
class Failed:
    """The sampler failed, and the process ends."""

    error: str


ToProcess: TypeAlias = Start | Request | Tell | WaitingTrial | ParamRequest | ParamUse
FromProcess: TypeAlias = Answer | ParamAnswer | Exhausted | Skipped | Failed
