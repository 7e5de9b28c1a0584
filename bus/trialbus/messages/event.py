"""Event: the base class of all messages, with the fields that every message has."""

from __future__ import annotations

import re
import time
from functools import lru_cache
from typing import Annotated, TypeAlias

import msgspec

from trialbus.messages.topics import make_topic

#: A number from 0 up that every Optuna storage can hold.
Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, lt=1 << 31)]


def _snake_case(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


@lru_cache(maxsize=1 << 12)
def _topic(event_type: type[Event], study: str, trial: int | None) -> str:
    return make_topic(get_type_name(event_type), study, trial)


def get_type_name(event_type: type[Event]) -> str:
    """Return the name of an event class in topics and bodies.

    Raises:
        ValueError: No topic can hold the name: the hub would refuse every event of the class.
    """
    tag = str(event_type.__struct_config__.tag)
    if "/" in tag:
        raise ValueError(
            f"{event_type.__name__}: {tag!r} cannot be a tag (expected a text without '/')"
        )
    return tag


class Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag=_snake_case):
    """Base class of all events."""

    study: str = ""
    """Name of the study; empty where an event concerns no study in particular."""

    at: float = msgspec.field(default_factory=time.time)
    """Time at which the event was made, in seconds since the epoch (UTC), by the sender's clock."""

    @property
    def type(self) -> str:
        """Tag of the event class, for example `evaluation_complete`."""
        return str(self.__struct_config__.tag)

    @property
    def topic(self) -> str:
        """Topic under which the event is published: `type/study/trial`."""
        return _topic(type(self), self.study, getattr(self, "trial", None))


class TrialEvent(Event, frozen=True, kw_only=True):
    """Base class of the events of a trial."""

    trial: Count
    """Number of the trial in its study, as Optuna counts, from 0."""

    attempt: Count = 0
    """0 for the first run of the trial, one more each time the trial is handed out again.

    An event of an attempt that was given up stays in the log and is never applied.
    """
