"""trialbus: hyperparameter studies over a durable event bus.

A training script needs `attach` and `TrialPruned`; a listener needs `subscribe` and the events.
"""

from trialbus.client.link import Link
from trialbus.client.presence import Presence
from trialbus.client.publisher import Publisher
from trialbus.client.subscriber import Record, Subscriber, replay, subscribe
from trialbus.errors import (
    ClosedError,
    HubRefusedError,
    HubUnavailableError,
    LogError,
    LogResetError,
    OutboxFullError,
    SpecError,
    StudyEndedError,
    TrialbusError,
    TrialPruned,
)
from trialbus.messages.codec import register
from trialbus.messages.events import (
    ArtifactLogged,
    Enqueue,
    EvaluationComplete,
    Event,
    Pause,
    Proceed,
    Prune,
    ReportReady,
    RequestRefused,
    RequestWithdrawn,
    Resume,
    Stop,
    StudyFinished,
    StudyStarted,
    StudySubmitted,
    TrainerLost,
    TrialAssigned,
    TrialAttributeSet,
    TrialClosed,
    TrialEvent,
    TrialFinished,
    TrialRequested,
    TrialStarted,
    UnknownEvent,
)
from trialbus.study.search_space import CategoricalParam, FloatParam, IntParam
from trialbus.study.spec import Component, Evaluation, Objective, PruneBy, StudySpec
from trialbus.study.spec_loading import load_spec
from trialbus.trainer.attachment import attach, report, trials
from trialbus.trainer.requester import RequestedTrial, TrialRequester
from trialbus.trainer.trial import Trial

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
    "RequestRefused",
    "RequestWithdrawn",
    "RequestedTrial",
    "Resume",
    "SpecError",
    "Stop",
    "StudyEndedError",
    "StudyFinished",
    "StudySpec",
    "StudyStarted",
    "StudySubmitted",
    "Subscriber",
    "TrainerLost",
    "Trial",
    "TrialAssigned",
    "TrialAttributeSet",
    "TrialClosed",
    "TrialEvent",
    "TrialFinished",
    "TrialPruned",
    "TrialRequested",
    "TrialRequester",
    "TrialStarted",
    "TrialbusError",
    "UnknownEvent",
    "attach",
    "load_spec",
    "register",
    "replay",
    "report",
    "subscribe",
    "trials",
]
