"""Assignments: a trial as it is handed to the process that runs it."""

from __future__ import annotations

import socket
import time
import uuid
from typing import Any

import msgspec

from trialbus.client.link import Link
from trialbus.client.presence import Presence
from trialbus.client.publisher import Publisher
from trialbus.client.subscriber import Subscriber, subscribe
from trialbus.errors import TrialbusError
from trialbus.messages import events
from trialbus.protocol.endpoint import ENDPOINT_VARIABLE
from trialbus.study.spec import Evaluation

#: Set by the worker for the process of a trial: an `Assignment` as JSON.
TRIAL_VARIABLE = "TRIALBUS_TRIAL"

#: Seconds of silence after which a trainer counts as lost.
TTL_S = 30.0

_CONNECT_S = 10.0


class Assignment(msgspec.Struct, frozen=True, kw_only=True):
    """A trial, as `$TRIALBUS_TRIAL` holds it."""

    study: str
    trial: int
    attempt: int = 0
    params: dict[str, Any]
    seed: int = 0
    budget: int | None = None
    evaluation: Evaluation = Evaluation()
    config: dict[str, Any] = {}
    config_name: str | None = None


def environment(event: events.TrialAssigned, endpoint: str) -> dict[str, str]:
    """Return the environment variables that make `attach` in another process return this trial."""
    return {
        ENDPOINT_VARIABLE: endpoint,
        TRIAL_VARIABLE: msgspec.json.encode(_assignment(event)).decode(),
    }


def ask_for(
    study: str, endpoint: str | None, timeout_s: float | None
) -> tuple[Link, Presence, Assignment]:
    """Ask the optimizer for a trial of a study and wait for it.

    Returns:
        An open link, a session registered as the trial's trainer, and the trial.

    Raises:
        HubUnavailableError: No hub within `timeout_s` seconds.
        TrialbusError: No trial within `timeout_s` seconds; the request is taken back.
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
            subscribe(events.TrialAssigned, study=study, link=link) as answers,
            Publisher(link=link) as publisher,
        ):
            answers.wait_ready(_CONNECT_S if timeout_s is None else timeout_s)
            publisher.publish(request)
            try:
                answer = _answer(answers, request.request, timeout_s)
            except BaseException:
                publisher.publish(events.RequestWithdrawn(study=study, request=request.request))
                raise
    except BaseException:
        presence.close()
        link.close()
        raise
    presence.assign(study, answer.trial, answer.attempt)
    return link, presence, _assignment(answer)


def _answer(
    answers: Subscriber[events.TrialAssigned], request: str, timeout_s: float | None
) -> events.TrialAssigned:
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    while True:
        event = answers.next(None if deadline is None else max(0.0, deadline - time.monotonic()))
        if event is None:
            raise TrialbusError(
                f"no trial was handed out within {timeout_s:g} s; is the optimizer running, "
                "and is the study submitted and not finished?"
            )
        if event.request == request:
            return event


def _assignment(event: events.TrialAssigned) -> Assignment:
    return Assignment(
        study=event.study,
        trial=event.trial,
        attempt=event.attempt,
        params=event.params,
        seed=event.seed,
        budget=event.budget,
        evaluation=event.evaluation,
        config=event.config,
        config_name=event.config_name,
    )
