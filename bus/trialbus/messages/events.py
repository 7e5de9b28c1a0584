"""Events: every message of the system, by name.

Events that report what happened are named in the past tense, commands in the imperative. Each is a
frozen `msgspec.Struct` whose tag, the class name in snake_case, is stored under the key `type` and
is the first part of the topic. On the wire an event is a MessagePack map: unknown keys are ignored
and missing keys take their default, so versions can differ across a cluster.

The tag of a user's own event type starts with `x_`, and `register` makes the type known:

```python
@trialbus.register
class GpuHot(trialbus.Event, frozen=True, kw_only=True, tag="x_gpu_hot"):
    celsius: float
```
"""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

from trialbus.messages.commands import (
    Enqueue,
    Pause,
    Proceed,
    Prune,
    Resume,
    Stop,
)
from trialbus.messages.event import (
    Count,
    Event,
    TrialEvent,
)
from trialbus.messages.param_events import (
    DefineByRun,
    ParamRequested,
    ParamSuggested,
    SuggestedValue,
)
from trialbus.messages.study_events import (
    BestTrial,
    FinishReason,
    ReportReady,
    StudyFinished,
    StudyStarted,
    StudySubmitted,
    TrainerLost,
    TrialCounts,
)
from trialbus.messages.trial_events import (
    ArtifactLogged,
    EvaluationComplete,
    RequestRefused,
    RequestWithdrawn,
    TrialAssigned,
    TrialAttributeSet,
    TrialClosed,
    TrialFinished,
    TrialRequested,
    TrialStarted,
    TrialState,
)
from trialbus.study.retries import FailureCause

__all__ = [
    "BUILT_IN",
    "AnyEvent",
    "ArtifactLogged",
    "BestTrial",
    "Count",
    "DefineByRun",
    "Enqueue",
    "EvaluationComplete",
    "Event",
    "FailureCause",
    "FinishReason",
    "ParamRequested",
    "ParamSuggested",
    "Pause",
    "Proceed",
    "Prune",
    "ReportReady",
    "RequestRefused",
    "RequestWithdrawn",
    "Resume",
    "Stop",
    "StudyFinished",
    "StudyStarted",
    "StudySubmitted",
    "SuggestedValue",
    "TrainerLost",
    "TrialAssigned",
    "TrialAttributeSet",
    "TrialClosed",
    "TrialCounts",
    "TrialEvent",
    "TrialFinished",
    "TrialRequested",
    "TrialStarted",
    "TrialState",
    "UnknownEvent",
]


class UnknownEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event of a type that this process does not know, with all fields as received."""

    topic: str
    """Topic of the event; the first part is the type."""

    data: dict[str, Any]
    """Decoded MessagePack map of the event."""

    @property
    def type(self) -> str:
        """Type of the event: the first part of the topic."""
        return self.topic.partition("/")[0]


AnyEvent: TypeAlias = Event | UnknownEvent

#: Every event class that trialbus defines.
BUILT_IN: tuple[type[Event], ...] = (
    StudySubmitted,
    StudyStarted,
    StudyFinished,
    TrialRequested,
    RequestWithdrawn,
    RequestRefused,
    TrialAssigned,
    TrialStarted,
    ParamRequested,
    ParamSuggested,
    EvaluationComplete,
    Proceed,
    ArtifactLogged,
    TrialAttributeSet,
    Prune,
    Stop,
    Pause,
    Resume,
    Enqueue,
    TrialFinished,
    TrialClosed,
    TrainerLost,
    ReportReady,
)
