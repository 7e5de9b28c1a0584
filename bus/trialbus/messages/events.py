"""Every message of the system.

Facts are named in the past tense, commands in the imperative. Each is a frozen `msgspec.Struct`
whose tag, the snake_case of its name, is stored under the key `type` and is the first part of its
topic. On the wire an event is a MessagePack map: unknown keys are ignored and missing ones take
their default, so versions can differ across a cluster.

A type of your own starts with `x_` and is made known with `register`:

```python
@trialbus.register
class GpuHot(trialbus.Event, frozen=True, kw_only=True, tag="x_gpu_hot"):
    celsius: float
```
"""

from __future__ import annotations

import re
import time
from functools import lru_cache
from typing import Annotated, Any, Literal, TypeAlias

import msgspec

from trialbus.messages.topics import topic
from trialbus.study.spec import Direction, Evaluation, StudySpec

#: Numbers that every Optuna storage can hold.
Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, lt=1 << 31)]
TrialState: TypeAlias = Literal["complete", "pruned", "failed", "preempted"]
FinishReason: TypeAlias = Literal["exhausted", "timeout", "stopped", "converged", "failed"]


def _snake_case(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


@lru_cache(maxsize=1 << 12)
def _topic(kind: type[Event], study: str, trial: int | None) -> str:
    return topic(str(kind.__struct_config__.tag), study, trial)


class Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag=_snake_case):
    """Base of all events.

    Attributes:
        study: Name of the study; empty where an event concerns none in particular.
        at: When it was made, in seconds since the epoch (UTC), by the clock of its maker.
    """

    study: str = ""
    at: float = msgspec.field(default_factory=time.time)

    @property
    def type(self) -> str:
        """The tag of this event's class, for example `evaluation_complete`."""
        return str(self.__struct_config__.tag)

    @property
    def topic(self) -> str:
        """The topic it is published under: `type/study/trial`."""
        return _topic(type(self), self.study, getattr(self, "trial", None))


class TrialEvent(Event, frozen=True, kw_only=True):
    """Base of the events of one trial.

    Attributes:
        trial: Number of the trial in its study, as Optuna counts, from 0.
        attempt: 0 for the first time the trial runs, one more each time it is handed out again.
            An event of an attempt that was given up stays in the log and is never applied.
    """

    trial: Count
    attempt: Count = 0


class StudySubmitted(Event, frozen=True, kw_only=True):
    """A client wants a study to run, or to go on.

    Attributes:
        submission: Id of this request; `study_started` and `study_finished` repeat it.
        origin: Where the study comes from, for people and reports, or empty: its `config`, the
            `versions` of libraries, the `git` commit and the `command`. Without passwords.
    """

    spec: StudySpec
    submission: str
    origin: dict[str, Any] = {}


class StudyStarted(Event, frozen=True, kw_only=True):
    """The optimizer took a study up.

    Attributes:
        n_trials: Total number of trials to come to.
        n_done: Trials that were finished before, when a study is resumed.
    """

    submission: str
    directions: list[Direction]
    metrics: list[str]
    n_trials: int
    n_done: int = 0


class BestTrial(msgspec.Struct, frozen=True, kw_only=True):
    """A best trial of a study: the best one, or one of the Pareto front."""

    number: int
    values: list[float]
    params: dict[str, Any]


class TrialCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Finished trials of a study by state."""

    complete: int = 0
    pruned: int = 0
    failed: int = 0


class StudyFinished(Event, frozen=True, kw_only=True):
    """A study ended; no further trial of it is handed out.

    Attributes:
        reason: `exhausted` (all trials done), `timeout`, `stopped` (by a `stop` command),
            `converged` or `failed`.
        error: What went wrong and what to do, for `failed`; else more about the reason, if there
            is more.
    """

    submission: str
    reason: FinishReason
    best_trials: list[BestTrial] = []
    counts: TrialCounts = TrialCounts()
    error: str | None = None


class TrialRequested(Event, frozen=True, kw_only=True):
    """A worker's slot, or a free-standing trainer, is ready for a trial. `study` may be empty: any.

    Attributes:
        request: Id of the request; asking again with the same id yields the same trial.
        session: The requester's presence session. When it is lost, the request is void and the
            trials handed to it are lost with it.
        worker: Name of the worker, for people.
        slot: Index of the slot within the worker.
        resources: What the slot has: `gpus`, `cpus`, and `memory_gb` where that is known.
    """

    request: str
    session: str
    worker: str = ""
    slot: int = 0
    resources: dict[str, float] = {}


class RequestWithdrawn(Event, frozen=True, kw_only=True):
    """A worker that stops takes back a request; a trial handed out for it is run by nobody."""

    request: str


class TrialAssigned(TrialEvent, frozen=True, kw_only=True):
    """The answer to a `trial_requested`.

    Attributes:
        session: The requester's session, copied from the request.
        params: Value of each parameter by name.
        seed: Seed for the training.
        budget: Steps to train, or None where the study leaves it to the trainer.
        evaluation: How to evaluate; what is None is left to the trainer.
        config: Configuration that is the same in every trial, nested and without the params.
        config_name: Name of a configuration of the trainer's own to begin with, or None.
    """

    request: str = ""
    session: str = ""
    params: dict[str, Any]
    seed: int = 0
    budget: int | None = None
    evaluation: Evaluation = Evaluation()
    config: dict[str, Any] = {}
    config_name: str | None = None
    worker: str = ""
    slot: int = 0


class TrialStarted(TrialEvent, frozen=True, kw_only=True):
    """A trainer attached to its trial."""

    host: str = ""
    pid: int = 0


class EvaluationComplete(TrialEvent, frozen=True, kw_only=True):
    """A trainer evaluated its model.

    Attributes:
        step: From 0 to 2**31 - 1; the unit (epoch, update, episode) is the study's.
        metrics: Value by name. NaN and infinities are allowed.
        elapsed_s: Seconds since the trainer attached.
        answer: Whether the trainer waits for the decision: `prune`, or else `proceed`.
    """

    step: Count
    metrics: dict[str, float]
    elapsed_s: float = 0.0
    answer: bool = False


class Proceed(TrialEvent, frozen=True, kw_only=True):
    """The optimizer tells a trainer that waits to go on; what is not asked for is not said.

    Attributes:
        step: The step that was judged.
    """

    step: int


class Prune(TrialEvent, frozen=True, kw_only=True):
    """The optimizer, or a person, tells a trainer to stop: the trial will not become a good one.

    Attributes:
        step: The step that was judged; from a person, the newest one they saw.
        reason: The pruner and the value it judged, for people.
        by: Who wants it; empty from the optimizer. A person's word lasts: the trial ends as pruned
            also where its trainer is lost before it has heard.
    """

    step: int
    reason: str = ""
    by: str = ""


class Pause(Event, frozen=True, kw_only=True):
    """Someone wants no trial of a study to be handed out for now; those that run go on.

    It lasts, over restarts of any service, until a `resume`, or until the study is submitted again.

    Attributes:
        by: Who wants it, for people.
    """

    by: str = ""


class Resume(Event, frozen=True, kw_only=True):
    """Someone wants trials of a paused study to be handed out again.

    Attributes:
        by: Who wants it, for people.
    """

    by: str = ""


class Enqueue(Event, frozen=True, kw_only=True):
    """Someone wants a trial with these params, ahead of what the sampler would suggest.

    It is one of the study's `n_trials`. Params that do not fit the search space are refused.

    Attributes:
        params: Value by name; the sampler gives what is left out.
        enqueue: Id of this wish: read again it makes no second trial.
        by: Who wants it, for people.
    """

    params: dict[str, Any]
    enqueue: str
    by: str = ""


class Stop(Event, frozen=True, kw_only=True):
    """Someone wants a study to end now: running trials are pruned, no further one is handed out."""

    reason: str = ""


class ArtifactLogged(TrialEvent, frozen=True, kw_only=True):
    """A trainer kept a file.

    Attributes:
        artifact: Its id: the name it has in the folder of artifacts.
        filename: The name it had before.
        mimetype: What it is, guessed from that name.
        encoding: How it is packed, for example `gzip`; None if it is not.

    Source:
        `optuna.artifacts.ArtifactMeta`.
    """

    artifact: str
    filename: str
    mimetype: str
    encoding: str | None = None


class TrialFinished(TrialEvent, frozen=True, kw_only=True):
    """An attempt at a trial ended. The first one about an attempt counts, a later one is ignored.

    Attributes:
        state: `complete`, `pruned`, `failed`, or `preempted` (ended from outside through no fault
            of its own: the trial is handed out again).
        values: Objective values, where the trainer gave them itself; None takes them from the
            evaluations by the study's rules.
        error: Last lines of the traceback or of the log, for `failed`.
        exit_code: Exit code of the training process, negative for a signal; None where its own
            trainer says so before it exits.
    """

    state: TrialState
    values: list[float] | None = None
    error: str | None = None
    exit_code: int | None = None


class TrainerLost(Event, frozen=True, kw_only=True):
    """A registered session fell silent for longer than its time-to-live.

    Attributes:
        session: Id of the session.
        kind: What it was: `trainer`, `worker`, `optimizer`, `reporter` or a name of your own.
        trial: Trial of a `trainer`, else None.
        attempt: Its attempt, else None.
        last_seen: Seconds since the epoch (UTC) of its last sign of life, by the hub's clock.
    """

    session: str
    kind: str
    trial: int | None = None
    attempt: int | None = None
    last_seen: float = 0.0


class ReportReady(Event, frozen=True, kw_only=True):
    """The reporter wrote its files.

    Attributes:
        submission: Copied from the `study_finished` it answers.
        paths: Absolute paths on the reporter's host; the page comes first.
        error: Why there is no report, where it could not be made.
    """

    submission: str
    paths: list[str] = []
    error: str | None = None


class UnknownEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event of a type this process does not know, as it came.

    Attributes:
        topic: Its topic; the first part is its type.
        data: The decoded MessagePack map.
    """

    topic: str
    data: dict[str, Any]

    @property
    def type(self) -> str:
        """The first part of the topic."""
        return self.topic.partition("/")[0]


AnyEvent: TypeAlias = Event | UnknownEvent

#: Every type that trialbus itself defines.
BUILT_IN: tuple[type[Event], ...] = (
    StudySubmitted,
    StudyStarted,
    StudyFinished,
    TrialRequested,
    RequestWithdrawn,
    TrialAssigned,
    TrialStarted,
    EvaluationComplete,
    Proceed,
    ArtifactLogged,
    Prune,
    Stop,
    Pause,
    Resume,
    Enqueue,
    TrialFinished,
    TrainerLost,
    ReportReady,
)
