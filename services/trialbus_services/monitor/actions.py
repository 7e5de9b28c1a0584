"""What people may do from the page, checked and turned into events."""

from __future__ import annotations

import getpass
import socket
import uuid
from typing import Any, TypeAlias

import msgspec

from trialbus.messages import events
from trialbus.study.search_space import FloatParam, IntParam
from trialbus_services.monitor.board import Board


class Act(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="act"):
    """Something to be done to a study that runs."""

    study: str
    """Name of the study."""


class StopStudy(Act, frozen=True, tag="stop"):
    """End the study."""


class PauseStudy(Act, frozen=True, tag="pause"):
    """Hand out no trial for now."""


class ResumeStudy(Act, frozen=True, tag="resume"):
    """Hand out trials again."""


class PruneTrial(Act, frozen=True, kw_only=True, tag="prune"):
    """End a trial that runs."""

    trial: int
    """Number of the trial."""


class EnqueueTrial(Act, frozen=True, kw_only=True, tag="enqueue"):
    """Run a trial with these params; numbers may be text, as they were typed."""

    params: dict[str, Any]
    """Value of each param by name; the sampler gives what is left out."""


AnyAct: TypeAlias = StopStudy | PauseStudy | ResumeStudy | PruneTrial | EnqueueTrial


class RefusedError(Exception):
    """What was asked for is not done; the message says why. `code` is HTTP's for it."""

    def __init__(self, code: int, why: str) -> None:
        super().__init__(why)
        self.code = code


def event_of(act: AnyAct, board: Board | None) -> events.Event:
    """Return the event that does what was asked for.

    Raises:
        RefusedError: The study or the trial does not run, or params are outside of the space.
    """
    if board is None or board.view.state == "finished":
        raise RefusedError(409, f"study {act.study!r} does not run")
    by = _who()
    match act:
        case StopStudy():
            return events.Stop(study=act.study, reason=f"stopped by {by}")
        case PauseStudy():
            return events.Pause(study=act.study, by=by)
        case ResumeStudy():
            return events.Resume(study=act.study, by=by)
        case PruneTrial():
            trial = board.view.running.get(act.trial)
            if trial is None:
                raise RefusedError(409, f"trial {act.trial} does not run")
            return events.Prune(
                study=act.study,
                trial=act.trial,
                attempt=trial.attempt,
                step=trial.step or 0,
                by=by,
            )
        case EnqueueTrial():
            params = _typed(act.params, board)
            return events.Enqueue(study=act.study, params=params, enqueue=uuid.uuid4().hex, by=by)


def _typed(params: dict[str, Any], board: Board) -> dict[str, Any]:
    """Return params as the search space has them."""
    if board.spec is None:
        raise RefusedError(
            409, "the study's search space is not known; its submission left the log"
        )
    try:
        found = {
            name: _number(f"params.{name}", value, board.spec.params.get(name))
            for name, value in params.items()
        }
        board.spec.check_params(found)
    except ValueError as error:
        raise RefusedError(400, str(error)) from None
    return found


def _number(key: str, value: Any, param: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        match param:
            case IntParam():
                return int(value)
            case FloatParam():
                return float(value)
            case _:
                return value
    except ValueError:
        raise ValueError(f"{key} {value!r} is not a number") from None


def _who() -> str:
    """Return who is behind the page, as far as this process knows."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user without a name
        user = "somebody"
    return f"{user}@{socket.gethostname()}"
