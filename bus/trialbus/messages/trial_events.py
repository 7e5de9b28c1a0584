"""Trial events: how a trial is requested, handed out, trained and finished."""

from __future__ import annotations

from typing import Any, Final, Literal, TypeAlias

from trialbus.messages.event import Count, Event, TrialEvent
from trialbus.messages.param_events import DefineByRun
from trialbus.messages.study_events import FinishReason, TrialCounts
from trialbus.study.retries import FailureCause, VerdictCause
from trialbus.study.spec import Evaluation

MAX_METRICS: Final = 1000
"""Metrics of an evaluation; an evaluation with more is not applied."""

TrialState: TypeAlias = Literal["complete", "pruned", "failed", "preempted"]


class TrialRequested(Event, frozen=True, kw_only=True):
    """A worker's slot, or a free-standing trainer, is ready for a trial.

    With an empty `study` a trial of any study will do.
    """

    request: str
    """Id of the request; a repeated request with the same id yields the same trial."""

    session: str
    """Session of the requester. Once the session is lost, the request and its trial are void."""

    worker: str = ""
    """Name of the worker, for people."""

    slot: int = 0
    """Index of the slot within the worker, from 0."""

    resources: dict[str, float] = {}
    """Resources of the slot: `gpus`, `cpus`, and `memory_gb` where that is known."""

    ends_with_study: bool = False
    """Whether the request is refused once the study has ended; else it waits for the study to be
    submitted again. Needs a `study`."""


class RequestRefused(Event, frozen=True, kw_only=True):
    """The optimizer will not hand out a trial for a request, since the study has ended."""

    request: str
    """Id of the `trial_requested` that is refused."""

    session: str = ""
    """Session of the requester, copied from the request."""

    reason: FinishReason
    """Reason of the study's end."""

    error: str | None = None
    """Details of the reason; None where the reason needs none."""


class RequestWithdrawn(Event, frozen=True, kw_only=True):
    """A worker that stops takes back a request; a trial handed out for the request does not run."""

    request: str
    """Id of the `trial_requested` that is taken back."""


class TrialAssigned(TrialEvent, frozen=True, kw_only=True):
    """The optimizer hands out a trial, in answer to a `trial_requested`.

    The event reaches the training as JSON in `$TRIALBUS_TRIAL`. JSON has no infinities and no NaN:
    such a number is null there, and the further key `non_finite` has its text by JSON Pointer
    (`{"/params/clip": "Infinity"}`).
    """

    request: str = ""
    """Id of the `trial_requested` that this answers; empty if the trial was not requested."""

    session: str = ""
    """Session of the requester, copied from the request."""

    params: dict[str, Any]
    """Value of each param by name."""

    labels: dict[str, str] = {}
    """Label of each param with labelled choices, which views show in place of the value."""

    seed: int = 0
    """Seed for the training."""

    budget: int | None = None
    """Number of steps to train; None if the study leaves it to the trainer."""

    evaluation: Evaluation = Evaluation()
    """How the training is to evaluate its model; a field that is None is left to the trainer."""

    config: dict[str, Any] = {}
    """Nested configuration that all trials of the study share, without the params."""

    config_name: str | None = None
    """Name of a configuration that the training composes itself to begin with, or None."""

    worker: str = ""
    """Name of the worker, copied from the request."""

    slot: int = 0
    """Index of the slot within the worker, copied from the request."""

    timeout_s: float | None = None
    """Seconds after which the worker, or a trainer without a worker, ends the attempt as
    `timed_out`; None for no limit."""

    silence_s: float | None = None
    """Seconds without a report after which the worker, or a trainer without a worker, ends the
    attempt as `silent`; None for no limit."""

    n_idle: int = 0
    """Attempts in a row, before this one, that were given back without a new step."""

    last_step: int | None = None
    """Highest step that an earlier attempt reported; None if there is none."""

    define_by_run: DefineByRun | None = None
    """For a training that asks for its params itself: objectives and first suggestions; `params`
    has then what an earlier attempt asked for. None if the study declares its params."""


class TrialStarted(TrialEvent, frozen=True, kw_only=True):
    """A trainer attached to a trial and starts the training."""

    host: str = ""
    """Name of the host that the training runs on."""

    pid: int = 0
    """Process id of the training on its host."""


class EvaluationComplete(TrialEvent, frozen=True, kw_only=True):
    """A trainer evaluated the model and reports the metrics."""

    step: Count
    """Step that was evaluated, from 0 to 2**31 - 1; the study decides the unit (epoch, update)."""

    metrics: dict[str, float]
    """Value of each metric by name, at most 1000. NaN and infinities are allowed."""

    elapsed_s: float = 0.0
    """Seconds since the trainer attached to the trial."""

    answer: bool = False
    """Whether the trainer waits for the decision about this step: a `prune` or a `proceed`."""


class ArtifactLogged(TrialEvent, frozen=True, kw_only=True):
    """A trainer stored a file of the trial as an artifact.

    Source:
        `optuna.artifacts.ArtifactMeta`.
    """

    artifact: str
    """Id of the artifact: the name of the file in the folder of artifacts."""

    filename: str
    """Name that the file had before it was copied."""

    mimetype: str
    """MIME type of the file, guessed from `filename`."""

    encoding: str | None = None
    """Compression of the file, for example `gzip`; None if it is not compressed."""


class TrialAttributeSet(TrialEvent, frozen=True, kw_only=True):
    """A trainer set a user attribute of the trial; the next attempt may set the attribute again.

    Source:
        `optuna.trial.Trial.set_user_attr`.
    """

    key: str
    """Key of the attribute, of 1 to 512 characters; `trialbus:` is the prefix of trialbus' own."""

    value: Any = None
    """Value of the attribute: what JSON can hold, in at most 65,535 bytes."""


class TrialFinished(TrialEvent, frozen=True, kw_only=True):
    """An attempt at a trial ended; only the first such event of an attempt counts.

    A `preempted` attempt was ended from outside, not by an error of the training: the trial is
    handed out again.
    """

    state: TrialState
    """How the attempt ended: `complete`, `pruned`, `failed` or `preempted`."""

    cause: FailureCause | None = None
    """Why a `failed` or `preempted` attempt ended; None for others, and where it is not known."""

    values: list[float] | None = None
    """Objective values that the trainer gave; None takes the values from the evaluations."""

    error: str | None = None
    """For `failed`, the last lines of the traceback or of the log; for `complete`, what the worker
    noticed that may explain missing values; None otherwise."""

    exit_code: int | None = None
    """Exit code of the training process, negative for a signal; None if the trainer sent this."""

    constraints: dict[str, float] = {}
    """Violation of each constraint that the training measured itself, by name; above zero the trial
    does not meet the constraint."""


class TrialClosed(TrialEvent, frozen=True, kw_only=True):
    """The optimizer recorded how a trial ended: the verdict, which every view shows.

    `trial_finished` is what the trainer says of its attempt; whether the trial is complete is
    decided by the optimizer, which knows constraints, missing metrics and retries.
    """

    state: Literal["complete", "pruned", "failed"]
    """State of the trial in the Optuna storage."""

    values: list[float] | None = None
    """Objective values of a complete trial; None for others."""

    cause: VerdictCause | None = None
    """Why a failed trial failed: why its last attempt ended, or `missing_metric` or `bad_value`
    where its reports are at fault; None for others."""

    error: str | None = None
    """For `failed`, why; None otherwise."""

    reason: str = ""
    """For `pruned`, why: the reason of the `prune`, and the person who sent it; empty otherwise."""

    is_feasible: bool = True
    """Whether the trial meets the study's constraints."""

    attempts: int = 1
    """Number of attempts that were handed out."""

    causes: list[FailureCause] = []
    """Why the attempts ended that were followed by another one, the newest 100."""

    counts: TrialCounts | None = None
    """Numbers of the study's finished trials, this one included; None where it is not known."""
