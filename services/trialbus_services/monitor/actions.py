"""Actions of users on the page, validated and turned into events."""

from __future__ import annotations

import getpass
import socket
import uuid
from typing import Any, TypeAlias

import msgspec

from trialbus.messages import events
from trialbus.study.search_space import CategoricalParam, FloatParam, IntParam
from trialbus_services.monitor.board import Board
from trialbus_services.monitor.event_text import to_json_value


class Action(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="action"
):
    """Action on a running study."""

    study: str
    """Name of the study."""


class StopStudy(Action, frozen=True, tag="stop"):
    """Stop the study."""


class PauseStudy(Action, frozen=True, tag="pause"):
    """Pause the study: no trial is handed out until the study is resumed."""


class ResumeStudy(Action, frozen=True, tag="resume"):
    """Resume the study: trials are handed out again."""


class PruneTrial(Action, frozen=True, kw_only=True, tag="prune"):
    """Prune a running trial."""

    trial: int
    """Number of the trial."""


class EnqueueTrial(Action, frozen=True, kw_only=True, tag="enqueue"):
    """Enqueue a trial with given params; numbers may be text, as typed by the user."""

    params: dict[str, Any]
    """Value of each param by name; the sampler chooses the params left out."""


AnyAction: TypeAlias = StopStudy | PauseStudy | ResumeStudy | PruneTrial | EnqueueTrial


class RefusedError(Exception):
    """A request is refused; the message says why, and `code` is the HTTP status."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


def create_event(action: AnyAction, board: Board | None) -> events.Event:
    """Create the event that carries out an action.

    Args:
        action: The action.
        board: Board of the study; None for an unknown study.

    Raises:
        RefusedError: The study or the trial does not run, or a param is outside of the space.
    """
    if board is None or board.view.state == "finished":
        raise RefusedError(409, f"study {action.study!r} does not run")
    user = _find_user()
    match action:
        case StopStudy():
            return events.Stop(study=action.study, reason=f"stopped by {user}")
        case PauseStudy():
            return events.Pause(study=action.study, by=user)
        case ResumeStudy():
            return events.Resume(study=action.study, by=user)
        case PruneTrial():
            trial = board.view.running.get(action.trial)
            if trial is None:
                raise RefusedError(409, f"trial {action.trial} does not run")
            return events.Prune(
                study=action.study,
                trial=action.trial,
                attempt=trial.attempt,
                step=trial.step or 0,
                by=user,
            )
        case EnqueueTrial():
            params = _convert_params(action.params, board)
            return events.Enqueue(
                study=action.study, params=params, enqueue=uuid.uuid4().hex, by=user
            )


def _convert_params(params: dict[str, Any], board: Board) -> dict[str, Any]:
    """Convert params to the types of the search space, and check the values."""
    if board.spec is None:
        raise RefusedError(
            409, "the study's search space is not known: the log no longer holds the submission"
        )
    try:
        converted = {
            name: _convert_number(f"params.{name}", value, board.spec.params.get(name))
            for name, value in params.items()
        }
        board.spec.check_params(converted)
    except ValueError as error:
        raise RefusedError(400, str(error)) from None
    return converted


def _convert_number(key: str, value: Any, param: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        match param:
            case CategoricalParam():
                # The page has a text for a number that JSON or JavaScript lacks.
                lacking = (x for x in param.labels if value == to_json_value(x) != x)
                return value if param.contains(value) else next(lacking, value)
            case IntParam():
                return int(value)
            case FloatParam():
                return float(value)
            case _:
                return value
    except ValueError:
        raise ValueError(f"{key} {value!r} is not a number") from None


def _find_user() -> str:
    """Return the user and host of this process, to sign events with."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user without a name
        user = "somebody"
    return f"{user}@{socket.gethostname()}"
