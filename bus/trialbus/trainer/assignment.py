"""Assignment: the `trial_assigned` event, from the worker's environment or the optimizer."""

from __future__ import annotations

import socket
import time
import uuid

import msgspec

from trialbus.client.link import Link
from trialbus.client.presence import Presence
from trialbus.client.publisher import Publisher
from trialbus.client.subscriber import Subscriber, subscribe
from trialbus.errors import SpecError, TrialbusError
from trialbus.messages import events
from trialbus.protocol.endpoint import ENDPOINT_VARIABLE

#: Environment variable of a trial's process, set by the worker: the `TrialAssigned` as JSON.
TRIAL_VARIABLE = "TRIALBUS_TRIAL"

#: Seconds of silence after which a trainer counts as lost.
TTL_S = 30.0

_CONNECT_S = 10.0


def make_environment(assigned: events.TrialAssigned, endpoint: str) -> dict[str, str]:
    """Return the environment variables with which `attach` in another process returns the trial."""
    return {
        ENDPOINT_VARIABLE: endpoint,
        TRIAL_VARIABLE: msgspec.json.encode(assigned).decode(),
    }


def parse_assignment(text: str) -> events.TrialAssigned:
    """Parse the text of `$TRIALBUS_TRIAL` to an assignment.

    Raises:
        SpecError: The text is not JSON, or lacks a field without a default.
    """
    try:
        return msgspec.json.decode(text, type=events.TrialAssigned)
    except msgspec.DecodeError as error:
        raise SpecError(f"${TRIAL_VARIABLE}", f"{text!r} is not a trial: {error}") from None


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
                assigned = _wait_for_assignment(assignments, request.request, timeout_s)
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
    assignments: Subscriber[events.TrialAssigned], request: str, timeout_s: float | None
) -> events.TrialAssigned:
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    while True:
        remaining_s = None if deadline is None else max(0.0, deadline - time.monotonic())
        event = assignments.next(remaining_s)
        if event is None:
            raise TrialbusError(
                f"no trial was assigned within {timeout_s:g} s; is the optimizer running, "
                "and is the study submitted and not finished?"
            )
        if event.request == request:
            return event
