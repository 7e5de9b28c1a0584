"""trialbus: hyperparameter studies over a durable event bus.

A training script needs `attach` and `TrialPruned`; a listener needs `subscribe` and the events.
"""

from trialbus.codec import register
from trialbus.errors import (
    ClosedError,
    HubRefusedError,
    HubUnavailableError,
    LogError,
    LogResetError,
    OutboxFullError,
    SpecError,
    TrialbusError,
    TrialPruned,
)
from trialbus.events import (
    ArtifactLogged,
    Enqueue,
    EvaluationComplete,
    Event,
    Pause,
    Proceed,
    Prune,
    ReportReady,
    RequestWithdrawn,
    Resume,
    Stop,
    StudyFinished,
    StudyStarted,
    StudySubmitted,
    TrainerLost,
    TrialAssigned,
    TrialEvent,
    TrialFinished,
    TrialRequested,
    TrialStarted,
    UnknownEvent,
)
from trialbus.link import Link
from trialbus.params import CategoricalParam, FloatParam, IntParam
from trialbus.presence import Presence
from trialbus.publisher import Publisher
from trialbus.spec import Component, Evaluation, Objective, PruneBy, StudySpec, load_spec
from trialbus.subscriber import Record, Subscriber, replay, subscribe
from trialbus.trial import Trial, attach

__all__ = [
    "ArtifactLogged",
    "CategoricalParam",
    "ClosedError",
    "Component",
    "Enqueue",
    "Evaluation",
    "EvaluationComplete",
    "Event",
    "FloatParam",
    "HubRefusedError",
    "HubUnavailableError",
    "IntParam",
    "Link",
    "LogError",
    "LogResetError",
    "Objective",
    "OutboxFullError",
    "Pause",
    "Presence",
    "Proceed",
    "Prune",
    "PruneBy",
    "Publisher",
    "Record",
    "ReportReady",
    "RequestWithdrawn",
    "Resume",
    "SpecError",
    "Stop",
    "StudyFinished",
    "StudySpec",
    "StudyStarted",
    "StudySubmitted",
    "Subscriber",
    "TrainerLost",
    "Trial",
    "TrialAssigned",
    "TrialEvent",
    "TrialFinished",
    "TrialPruned",
    "TrialRequested",
    "TrialStarted",
    "TrialbusError",
    "UnknownEvent",
    "attach",
    "load_spec",
    "register",
    "replay",
    "subscribe",
]
