"""Assignment: the `trial_assigned` event, from the worker's environment or the optimizer."""

from __future__ import annotations

import logging
import math
import socket
import time
import uuid
from typing import Any

import msgspec

from trialbus.client.link import Link
from trialbus.client.presence import Presence
from trialbus.client.publisher import Publisher
from trialbus.client.subscriber import Subscriber, subscribe
from trialbus.errors import SpecError, TrialbusError
from trialbus.messages import events
from trialbus.protocol.endpoint import ENDPOINT_VARIABLE
from trialbus.study.validation import is_mapping
from trialbus.study.values import restore_non_finite, separate_non_finite

#: Environment variable of a trial's process, set by the worker: the `TrialAssigned` as JSON.
TRIAL_VARIABLE = "TRIALBUS_TRIAL"

#: Seconds of silence after which a trainer counts as lost.
TTL_S = 30.0

#: Key of the JSON beside the fields: numbers that JSON lacks, by `values.separate_non_finite`.
_NON_FINITE = "non_finite"

_CONNECT_S = 10.0
_FIRST_NOTE_S = 1.0
_NOTE_EVERY_S = 30.0

logger = logging.getLogger(__name__)


def make_environment(assigned: events.TrialAssigned, endpoint: str) -> dict[str, str]:
    """Return the environment variables with which `attach` in another process returns the trial."""
    data, non_finite = separate_non_finite(msgspec.to_builtins(assigned, enc_hook=_encode_scalar))
    if non_finite:
        data[_NON_FINITE] = non_finite
    return {ENDPOINT_VARIABLE: endpoint, TRIAL_VARIABLE: msgspec.json.encode(data).decode()}


def parse_assignment(text: str) -> events.TrialAssigned:
    """Parse the text of `$TRIALBUS_TRIAL` to an assignment.

    Raises:
        SpecError: The text is not JSON, or lacks a field without a default.
    """
    try:
        data: Any = msgspec.json.decode(text)
        if is_mapping(data):
            restore_non_finite(data, msgspec.convert(data.get(_NON_FINITE, {}), dict[str, str]))
        return msgspec.convert(data, events.TrialAssigned)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise SpecError(f"${TRIAL_VARIABLE}", f"{text!r} is not a trial: {error}") from None


def _encode_scalar(value: Any) -> Any:
    """Return a scalar of NumPy, or of another library with NumPy's interface, as Python's own."""
    if hasattr(value, "item") and getattr(value, "shape", None) == ():
        return value.item()
    raise TypeError(f"{value!r} cannot be sent to another process (expected a plain value)")


def request_trial(
    study: str, endpoint: str | None, timeout_s: float | None
) -> tuple[Link, Presence, events.TrialAssigned]:
    """Request a trial of a study from the optimizer and wait for the assignment.

    Returns:
        An open link, a session registered as the trial's trainer, and the assignment.

    Raises:
        HubUnavailableError: No hub answered within `timeout_s` seconds.
        TrialbusError: No trial was handed out within `timeout_s` seconds; the request is
            withdrawn.
    """
    link = Link(endpoint)
    presence = Presence(
        link=link, kind="trainer", ttl_s=TTL_S, study=study, info={"host": socket.gethostname()}
    )
    request = events.TrialRequested(
        study=study,
        request=uuid.uuid4().hex,
        session=presence.session,
        worker=socket.gethostname(),
    )
    try:
        with (
            subscribe(events.TrialAssigned, study=study, link=link) as assignments,
            Publisher(link=link) as publisher,
        ):
            connect_s = _CONNECT_S if timeout_s is None else timeout_s
            assignments.wait_ready(connect_s)
            # A trial of a process that the hub does not know would never be handed out again.
            presence.wait_registered(connect_s)
            publisher.publish(request)
            try:
                assigned = _wait_for_assignment(assignments, request, link, timeout_s)
            except BaseException:
                publisher.publish(events.RequestWithdrawn(study=study, request=request.request))
                raise
    except BaseException:
        presence.close()
        link.close()
        raise
    presence.assign(study, assigned.trial, assigned.attempt)
    return link, presence, assigned


def _wait_for_assignment(
    assignments: Subscriber[events.TrialAssigned],
    request: events.TrialRequested,
    link: Link,
    timeout_s: float | None,
) -> events.TrialAssigned:
    deadline = math.inf if timeout_s is None else time.monotonic() + timeout_s
    note_at = time.monotonic() + _FIRST_NOTE_S
    while True:
        now = time.monotonic()
        event = assignments.next(max(0.0, min(deadline, note_at) - now))
        now = time.monotonic()
        if event is None and now >= note_at and now < deadline:
            logger.warning("%s", _describe_wait(link, request.study))
            note_at = time.monotonic() + _NOTE_EVERY_S
        if event is None and now >= deadline:
            raise TrialbusError(
                f"no trial was assigned within {timeout_s:g} s; is the optimizer running, "
                "and is the study submitted and not finished?"
            )
        if event is not None and event.request == request.request:
            return event


def _describe_wait(link: Link, study: str) -> str:
    """Return what a request for a trial waits for: a hub, a submission, or an optimizer."""
    if not link.connected:
        return f"no hub answers at {link.endpoint}; waiting for a trial of study {study!r}"
    waiting = f"waiting for a trial of study {study!r}"
    try:
        with subscribe(events.StudySubmitted, study=study, start="earliest", link=link) as log:
            is_submitted = any(True for _ in log.read_to(None, _FIRST_NOTE_S))
    except TrialbusError:
        return waiting
    return waiting if is_submitted else f"{waiting}, which nobody has submitted on this bus"
