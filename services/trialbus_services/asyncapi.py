"""The AsyncAPI 3 document of the bus, generated from the structs: `./scripts/asyncapi`."""

from __future__ import annotations

import inspect
import json
from typing import Any

import msgspec

from trialbus import events

_WORKER, _TRAINER, _OPTIMIZER = "worker", "trainer", "optimizer"
#: Who publishes an event, and who acts on it.
_PARTIES: dict[type[events.Event], tuple[list[str], list[str]]] = {
    events.StudySubmitted: (["client"], [_OPTIMIZER]),
    events.StudyStarted: ([_OPTIMIZER], ["listener"]),
    events.StudyFinished: ([_OPTIMIZER], ["reporter", "listener"]),
    events.TrialRequested: ([_WORKER, _TRAINER], [_OPTIMIZER]),
    events.RequestWithdrawn: ([_WORKER, _TRAINER], [_OPTIMIZER]),
    events.TrialAssigned: ([_OPTIMIZER], [_WORKER, _TRAINER]),
    events.TrialStarted: ([_TRAINER], ["listener"]),
    events.EvaluationComplete: ([_TRAINER], [_OPTIMIZER, "listener"]),
    events.Prune: ([_OPTIMIZER], [_TRAINER]),
    events.Stop: (["client"], [_OPTIMIZER]),
    events.TrialFinished: ([_TRAINER, _WORKER], [_OPTIMIZER]),
    events.TrainerLost: (["hub"], [_OPTIMIZER, _WORKER]),
    events.ReportReady: (["reporter"], ["client"]),
}


def document() -> dict[str, Any]:
    """Return the document as plain data, the same for the same structs.

    Source:
        AsyncAPI specification 3.0.0; payload schemas by `msgspec.json.schema_components`.
    """
    types = sorted(_PARTIES, key=_name)
    _, schemas = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "trialbus",
            "version": "1",
            "description": "Events of the bus. Frames and flow are in protocol.md.",
            "license": {"name": "MIT"},
        },
        "defaultContentType": "application/msgpack",
        "servers": {
            "local": {
                "host": ".trialbus/hub.sock",
                "protocol": "zmq",
                "description": "One ROUTER; clients connect a DEALER.",
            }
        },
        "channels": {_name(type_): _channel(type_) for type_ in types},
        "operations": {
            f"{party}_{verb}_{_name(type_)}": {
                "action": action,
                "channel": {"$ref": f"#/channels/{_name(type_)}"},
                "summary": f"The {party} {verb} it.",
            }
            for type_ in types
            for parties, verb, action in zip(
                _PARTIES[type_], ("publishes", "reads"), ("send", "receive"), strict=True
            )
            for party in parties
        },
        "components": {
            "messages": {_name(type_): _message(type_) for type_ in types},
            "schemas": schemas,
        },
    }


def text() -> str:
    """Return the document as the file in `docs/` holds it."""
    return json.dumps(document(), indent=2) + "\n"


def _name(type_: type[events.Event]) -> str:
    return str(type_.__struct_config__.tag)


def _channel(type_: type[events.Event]) -> dict[str, Any]:
    has_trial = "trial" in type_.__struct_fields__
    parameters = {"study": {"description": "Name of the study, escaped; may be empty."}}
    if has_trial:
        parameters["trial"] = {"description": "Number of the trial."}
    return {
        "address": f"{_name(type_)}/{{study}}/" + ("{trial}" if has_trial else ""),
        "parameters": parameters,
        "messages": {_name(type_): {"$ref": f"#/components/messages/{_name(type_)}"}},
    }


def _message(type_: type[events.Event]) -> dict[str, Any]:
    return {
        "name": _name(type_),
        "summary": inspect.cleandoc(type_.__doc__ or "").splitlines()[0],
        "payload": {"$ref": f"#/components/schemas/{type_.__name__}"},
    }


if __name__ == "__main__":
    print(text(), end="")  # noqa: T201
