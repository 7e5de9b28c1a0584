"""The page docs/reference/messages.md: sender, receiver, topic and fields of every event."""

from __future__ import annotations

import msgspec

from trialbus.messages import events
from trialbus.protocol.permissions import ROUTES
from trialbus.study.spec import Evaluation
from trialbus_services.reference.asyncapi import get_tag
from trialbus_services.reference.fields import list_fields
from trialbus_services.reference.markdown import NOTICE, format_fields, format_table, read_summary

_INTRODUCTION = """\
# Messages

Every event that trialbus itself defines. On the wire an event is a MessagePack map of the fields
below, with the name of the event under the key `type`. `client` is a command, the live page or a
program of a user; `listener` is whoever subscribes. Readers ignore unknown fields, and a missing
field takes its default. [The protocol](../protocol.md) has the rules of the bus,
[asyncapi.json](../asyncapi.json) the same fields for tools.
"""

#: Structs in the fields of events.
_STRUCTS: tuple[type[msgspec.Struct], ...] = (
    events.BestTrial,
    events.TrialCounts,
    events.DefineByRun,
    events.SuggestedValue,
    Evaluation,
)
_LINKS = {struct.__name__: f"#{struct.__name__.lower()}" for struct in _STRUCTS} | {
    "StudySpec": "config.md#study"
}


def render() -> str:
    """Return the page as Markdown."""
    sections = [
        NOTICE,
        _INTRODUCTION,
        _render_overview(),
        "## Fields of every event",
        format_fields(list_fields(events.Event)),
        "## Fields of every event of a trial",
        _render_added_fields(events.TrialEvent, events.Event),
        *(_render_event(event) for event in events.BUILT_IN),
        *(
            f"## {struct.__name__}\n\n{read_summary(struct)}\n\n"
            + format_fields(list_fields(struct), links=_LINKS)
            for struct in _STRUCTS
        ),
    ]
    return "\n\n".join(section.strip() for section in sections) + "\n"


def _render_overview() -> str:
    rows = [
        [f"[`{tag}`](#{tag})", ", ".join(ROUTES[tag].senders), ", ".join(ROUTES[tag].receivers)]
        for tag in map(get_tag, events.BUILT_IN)
    ]
    return format_table(["event", "from", "to"], rows)


def _render_event(event: type[events.Event]) -> str:
    tag = get_tag(event)
    has_trial = issubclass(event, events.TrialEvent)
    base = events.TrialEvent if has_trial else events.Event
    inherited = "[every event](#fields-of-every-event)" + (
        " and of [every event of a trial](#fields-of-every-event-of-a-trial)" if has_trial else ""
    )
    route = ROUTES[tag]
    return "\n\n".join(
        [
            f"## {tag}",
            read_summary(event),
            f"From {' or '.join(route.senders)} to {', '.join(route.receivers)}. "
            f"Topic: `{tag}/<study>/{'<trial>' if has_trial else ''}`. "
            f"Has the fields of {inherited}"
            + (", and:" if set(event.__struct_fields__) > set(base.__struct_fields__) else "."),
            _render_added_fields(event, base),
        ]
    )


def _render_added_fields(struct: type[msgspec.Struct], base: type[msgspec.Struct]) -> str:
    """Return the table of the fields that a struct adds to a base class."""
    fields = [f for f in list_fields(struct) if f.name not in base.__struct_fields__]
    return format_fields(fields, links=_LINKS) if fields else ""
