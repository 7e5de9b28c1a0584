"""Study events: submission, start, end and report of a study, and lost sessions."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import msgspec

from trialbus.messages.event import Event
from trialbus.study.spec import Direction, StudySpec

FinishReason: TypeAlias = Literal["exhausted", "timeout", "stopped", "converged", "failed"]


class StudySubmitted(Event, frozen=True, kw_only=True):
    """A client wants a study to run, or to go on."""

    spec: StudySpec
    """Specification of the study: search space, objectives, sampler, pruner, number of trials."""

    submission: str
    """Id of this submission, which `study_started` and `study_finished` repeat."""

    origin: dict[str, Any] = {}
    """Where the study comes from, for people and reports; may be empty.

    Holds the study's `config`, the `versions` of libraries, the `git` commit and the `command`.
    Contains no passwords.
    """


class BestTrial(msgspec.Struct, frozen=True, kw_only=True):
    """A best trial of a study; with several objectives, a trial of the Pareto front."""

    number: int
    """Number of the trial in its study."""

    values: list[float]
    """Objective values of the trial, in the order of the study's objectives."""

    params: dict[str, Any]
    """Value of each param by name."""


class TrialCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Numbers of a study's finished trials, by state."""

    complete: int = 0
    """Number of complete trials."""

    pruned: int = 0
    """Number of pruned trials."""

    failed: int = 0
    """Number of failed trials."""


class StudyStarted(Event, frozen=True, kw_only=True):
    """The optimizer accepted a study; trials of the study can be requested."""

    submission: str
    """Id of the `study_submitted` that the optimizer accepted."""

    directions: list[Direction]
    """Direction of each objective: `minimize` or `maximize`."""

    metrics: list[str]
    """Metric of each objective, in the order of `directions`."""

    n_trials: int
    """Total number of trials that the study is to have: `n_trials` of its specification, or the
    number of points where each point of a smaller search space is tried once."""

    n_done: int = 0
    """Number of trials that had already finished, when a study is resumed."""

    counts: TrialCounts = TrialCounts()
    """Numbers of the trials that had already finished, by state."""

    best_trials: list[BestTrial] = []
    """The best of those trials, or their Pareto front; empty if no trial is complete."""

    elapsed_s: float = 0.0
    """Seconds that the study ran before, in all its earlier submissions."""


class StudyFinished(Event, frozen=True, kw_only=True):
    """A study ended; no further trial of the study is handed out."""

    submission: str
    """Id of the `study_submitted` that this ends."""

    reason: FinishReason
    """`exhausted` (all trials done), `timeout`, `stopped` (by `stop`), `converged` or `failed`."""

    best_trials: list[BestTrial] = []
    """The best trial, or the Pareto front; empty if no trial is complete."""

    counts: TrialCounts = TrialCounts()
    """Numbers of finished trials, by state."""

    error: str | None = None
    """For `failed`, what went wrong and what to do; otherwise details of the reason, or None."""


class TrainerLost(Event, frozen=True, kw_only=True):
    """A session was silent for longer than its time-to-live, or requested and is not known.

    The hub publishes the loss of a session that was registered. The optimizer publishes the loss of
    a session that requested a trial and that the hub does not know.
    """

    session: str
    """Id of the session."""

    kind: str
    """Kind of process: `trainer`, `worker`, `optimizer`, `reporter` or a name of a user's own."""

    trial: int | None = None
    """Number of the trial that a `trainer` was running; None for other kinds."""

    attempt: int | None = None
    """Attempt at the trial that a `trainer` was running; None for other kinds."""

    last_seen: float = 0.0
    """Time of the session's last message, in seconds since the epoch (UTC), by the hub's clock."""


class ReportReady(Event, frozen=True, kw_only=True):
    """The reporter wrote the report of a study."""

    submission: str
    """Id of the submission, copied from the `study_finished` that the report is about."""

    paths: list[str] = []
    """Absolute paths of the report's files on the reporter's host, the page first."""

    error: str | None = None
    """Why the report could not be made; None if it was made."""
