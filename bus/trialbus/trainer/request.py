"""Request: how a free-standing training gets a trial of a study from the optimizer."""

from __future__ import annotations

import logging
import math
import socket
import time
import uuid

import msgspec

from trialbus.client.link import Link
from trialbus.client.presence import Presence
from trialbus.client.publisher import Publisher
from trialbus.client.subscriber import Subscriber, subscribe
from trialbus.errors import HubUnavailableError, StudyEndedError, TrialbusError
from trialbus.messages import events
from trialbus.messages.hand_outs import HandOuts
from trialbus.trainer.assignment import TTL_S

_CONNECT_S = 10.0
_FIRST_NOTE_S = 1.0
_CHECK_EVERY_S = 10.0
_NEVER = "never submitted"
_UNKNOWN = "not known"

logger = logging.getLogger(__name__)


def request_trial(
    study: str, endpoint: str | None, timeout_s: float | None
) -> tuple[Link, Presence, events.TrialAssigned]:
    """Request a trial of a study from the optimizer and wait for the assignment.

    Returns:
        An open link, a session registered as the trial's trainer, and the assignment.

    Raises:
        HubUnavailableError: No hub answered within `timeout_s` seconds.
        StudyEndedError: The study has ended.
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
        ends_with_study=True,
    )
    try:
        with (
            subscribe(
                events.TrialAssigned, events.RequestRefused, study=study, link=link
            ) as answers,
            Publisher(link=link) as publisher,
        ):
            _wait_for_hub(link, study, _CONNECT_S if timeout_s is None else timeout_s)
            answers.wait_ready(_CONNECT_S)
            # A trial of a process that the hub does not know would never be handed out again.
            presence.wait_registered(_CONNECT_S)
            publisher.publish(request)
            try:
                assigned = _wait_for_answer(answers, request, link, timeout_s)
            except BaseException:
                publisher.publish(events.RequestWithdrawn(study=study, request=request.request))
                raise
    except BaseException:
        presence.close()
        link.close()
        raise
    presence.assign(study, assigned.trial, assigned.attempt)
    return link, presence, assigned


def _wait_for_hub(link: Link, study: str, timeout_s: float) -> None:
    """Wait until the hub answers, and log after a second what is waited for.

    Raises:
        HubUnavailableError: No hub answered within `timeout_s` seconds.
    """
    try:
        link.wait_connected(min(timeout_s, _FIRST_NOTE_S))
    except HubUnavailableError:
        if timeout_s <= _FIRST_NOTE_S:
            raise
        logger.warning(
            "no hub answers at %s; waiting %g s for one, which `trialbus hub` or `trialbus study` "
            "starts, to get a trial of study %r",
            link.endpoint,
            timeout_s,
            study,
        )
        link.wait_connected(timeout_s - _FIRST_NOTE_S)


def _wait_for_answer(
    answers: Subscriber[events.Event],
    request: events.TrialRequested,
    link: Link,
    timeout_s: float | None,
) -> events.TrialAssigned:
    """Wait for the assignment, and log what is waited for whenever that changes."""
    deadline = math.inf if timeout_s is None else time.monotonic() + timeout_s
    check_at = time.monotonic() + _FIRST_NOTE_S
    noted = ""
    hand_outs = HandOuts()
    while True:
        now = time.monotonic()
        event = answers.next(max(0.0, min(deadline, check_at) - now))
        now = time.monotonic()
        if event is None and now >= check_at and now < deadline:
            submission = _read_submission(link, request.study)
            if isinstance(submission, events.StudyFinished):  # and no optimizer says so
                raise StudyEndedError(request.study, submission.reason, submission.error)
            note = _describe_wait(link, request.study, submission)
            if note != noted:
                logger.warning("%s", note)
                noted = note
            check_at = time.monotonic() + _CHECK_EVERY_S
        if event is None and now >= deadline:
            raise TrialbusError(
                f"no trial was assigned within {timeout_s:g} s; is the optimizer running, "
                "and is the study submitted and not finished?"
            )
        match event:
            case events.TrialAssigned():
                if hand_outs.add(event) and event.request == request.request:
                    return event
            case events.RequestRefused(request=request.request):
                raise StudyEndedError(event.study, event.reason, event.error)
            case _:
                continue


def _describe_wait(link: Link, study: str, submission: events.StudySubmitted | str) -> str:
    """Return what a request for a trial waits for: a hub, a submission, or an optimizer."""
    waiting = f"waiting for a trial of study {study!r}"
    if not link.connected:
        return f"no hub answers at {link.endpoint}; {waiting}"
    if submission == _NEVER:
        return f"{waiting}, which nobody has submitted on this bus"
    return f"{waiting}: all are running, the study is paused, or no optimizer serves this bus"


def _read_submission(link: Link, study: str) -> events.StudySubmitted | events.StudyFinished | str:
    """Return the newest submission of a study in the log, or its end if it has ended.

    Without a submission, or if the hub does not let this key read submissions, a text says so.
    """
    submitted: events.StudySubmitted | None = None
    finished: events.StudyFinished | None = None
    try:
        with subscribe(
            events.StudySubmitted, events.StudyFinished, study=study, start="earliest", link=link
        ) as log:
            for record in log.read_to(None, _FIRST_NOTE_S):
                match record.event:
                    case events.StudySubmitted() as event:
                        submitted = event
                    case events.StudyFinished() as event:
                        finished = event
                    case _:
                        continue
    except (TrialbusError, msgspec.DecodeError):
        return _UNKNOWN
    if submitted is None:
        return _NEVER
    if finished is not None and finished.submission == submitted.submission:
        return finished
    return submitted
