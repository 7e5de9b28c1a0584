"""The page docs/asyncapi.json: an AsyncAPI 3 document of every event and frame.

Channels are the types of events and the connection to the hub; operations tell which roles send and
receive each type. The output depends on the code alone, so a test can compare it with the page.

Source:
    https://www.asyncapi.com/docs/reference/specification/v3.0.0
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias, cast, get_args

import msgspec

from trialbus.messages import events
from trialbus.protocol import frames
from trialbus.protocol.permissions import ROUTES, USER_ROUTE
from trialbus_services.reference.fields import describe_fields
from trialbus_services.reference.markdown import read_summary

Json: TypeAlias = dict[str, Any]

_USER_TYPE = "x_own"
# Keywords of newer dialects of JSON Schema. No discriminator is needed: each alternative has a
# value of `type` of its own.
_NEWER_KEYWORDS = frozenset({"prefixItems", "contentEncoding", "discriminator"})
_SCHEMA_REF = "#/components/schemas/{name}"
_STUDY = (
    "Name of the study, with %, / and * written %25, %2F and %2A; empty where the event concerns "
    "none in particular."
)
_TRIAL = "Number of the trial in its study, from 0; empty where the event concerns none."
_DESCRIPTION = (
    "Everything that travels over a trialbus hub. The transport is ZeroMQ: a client's DEALER "
    "connects to the hub's ROUTER, and each message is one MessagePack array, described by the "
    "channel `connection`. The other channels are the topics of events, which travel inside "
    "`publish` and `events`. docs/protocol.md has the rules; this document has the fields.\n\n"
    "Schemas describe MessagePack values: a string of format `binary` is a bin, NaN and infinities "
    "are numbers, and integers are taken where a number is expected. Receivers ignore unknown "
    "keys, and unknown fields at the end of an array."
)


def build_document() -> Json:
    """Return the AsyncAPI document as plain data."""
    to_hub, to_client = _list_members(frames.ToHub), _list_members(frames.ToClient)
    schemas = _build_schemas([*events.BUILT_IN, *to_hub, *to_client, frames.Record])
    schemas["OwnEvent"] = {
        "title": "OwnEvent",
        "description": "An event of a type of your own. The hub stores and delivers it untouched.",
        "type": "object",
        "properties": {
            "type": {"type": "string", "pattern": "^x_"},
            "study": {"type": "string", "default": ""},
            "at": {"type": "number"},
        },
        "required": ["type"],
    }
    channels: Json = {"connection": _build_connection([*to_hub, *to_client])}
    operations: Json = {
        "client_sends": _build_operation("send", "connection", map(_format_name, to_hub)),
        "client_receives": _build_operation("receive", "connection", map(_format_name, to_client)),
    }
    messages = {_format_name(frame): _build_message(frame) for frame in (*to_hub, *to_client)}
    for event in events.BUILT_IN:
        type_ = get_tag(event)
        channels[type_] = _build_channel(type_, with_trial="trial" in event.__struct_fields__)
        messages[type_] = _build_message(event)
        route = ROUTES[type_]
        for roles, verb, action in (
            (route.senders, "sends", "send"),
            (route.receivers, "receives", "receive"),
        ):
            for role in roles:
                operations[f"{role}_{verb}_{type_}"] = _build_operation(
                    action, type_, [type_], role
                )
    channels[_USER_TYPE] = _build_channel("x_{name}", with_trial=True, message=_USER_TYPE) | {
        "description": "Types of your own."
    }
    channels[_USER_TYPE]["parameters"]["name"] = {"description": "The rest of the type's name."}
    for sender in USER_ROUTE.senders:
        operations[f"{sender}_sends_own"] = _build_operation(
            "send", _USER_TYPE, [_USER_TYPE], sender
        )
    for receiver in USER_ROUTE.receivers:
        operations[f"{receiver}_receives_own"] = _build_operation(
            "receive", _USER_TYPE, [_USER_TYPE], receiver
        )
    messages[_USER_TYPE] = {
        "title": "An event of your own",
        "contentType": "application/msgpack",
        "payload": {"$ref": _SCHEMA_REF.format(name="OwnEvent")},
    }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "trialbus",
            "version": str(frames.PROTOCOL),
            "description": _DESCRIPTION,
            "license": {"name": "MIT"},
        },
        "defaultContentType": "application/msgpack",
        "servers": {
            "hub": {
                "host": "{host}:{port}",
                "protocol": "zmq",
                "description": "A hub's ROUTER, over TCP. On one machine it is `ipc://<path>`.",
                "variables": {"host": {"default": "127.0.0.1"}, "port": {"default": "5760"}},
            }
        },
        "channels": channels,
        "operations": operations,
        "components": {"messages": messages, "schemas": schemas},
    }


def render() -> str:
    """Return the AsyncAPI document as JSON."""
    return json.dumps(build_document(), indent=2, ensure_ascii=False) + "\n"


def _build_connection(frame_types: Sequence[type[msgspec.Struct]]) -> Json:
    return {
        "address": None,
        "title": "The connection to the hub",
        "description": "One DEALER for each client; frames go both ways and every frame is whole.",
        "messages": {
            _format_name(frame): _refer_to_message(_format_name(frame)) for frame in frame_types
        },
    }


def _build_channel(type_: str, *, with_trial: bool, message: str | None = None) -> Json:
    parameters: Json = {"study": {"description": _STUDY}}
    if with_trial:
        parameters["trial"] = {"description": _TRIAL}
    name = message or type_
    return {
        "address": f"{type_}/{{study}}/" + ("{trial}" if with_trial else ""),
        "parameters": parameters,
        "messages": {name: _refer_to_message(name)},
    }


def _build_operation(action: str, channel: str, messages: Any, role: str = "") -> Json:
    base: Json = {
        "action": action,
        "channel": {"$ref": f"#/channels/{channel}"},
        "messages": [{"$ref": f"#/channels/{channel}/messages/{name}"} for name in messages],
    }
    return base | ({"tags": [{"name": role}]} if role else {})


def _build_message(struct: type[msgspec.Struct]) -> Json:
    doc = inspect.cleandoc(struct.__doc__ or "")
    return {
        "name": _format_name(struct),
        "title": doc.partition("\n")[0],
        "contentType": "application/msgpack",
        "payload": {"$ref": _SCHEMA_REF.format(name=struct.__name__)},
    }


def _refer_to_message(name: str) -> Json:
    return {"$ref": f"#/components/messages/{name}"}


def _build_schemas(structs: Sequence[type[msgspec.Struct]]) -> Json:
    _, components = msgspec.json.schema_components(structs, ref_template=_SCHEMA_REF)
    schemas: Json = {name: _convert_to_draft_07(schema) for name, schema in components.items()}
    for struct in _list_structs(structs):
        schema = schemas[struct.__name__]
        summary = read_summary(struct)
        if summary:
            schema["description"] = summary
        descriptions = describe_fields(struct)
        if struct.__struct_config__.array_like:
            tag = ["op"] if struct.__struct_config__.tag is not None else []
            names = [*tag, *struct.__struct_fields__]
            schema["items"] = [
                _annotate(item, title=name, description=descriptions.get(name, ""))
                for name, item in zip(names, schema["items"], strict=True)
            ]
        else:
            for name, item in schema["properties"].items():
                description = descriptions.get(name, "")
                schema["properties"][name] = _annotate(item, description=description)
    return {name: schemas[name] for name in sorted(schemas)}


def _annotate(schema: Json, **annotations: str) -> Json:
    """Return a schema with annotations; empty annotations are left out."""
    # A reference hides the keywords beside it.
    annotated: Json = {"allOf": [schema]} if "$ref" in schema else schema
    return annotated | {keyword: text for keyword, text in annotations.items() if text}


def _list_structs(types: Iterable[Any]) -> list[type[msgspec.Struct]]:
    """Return the structs among types and in the fields of structs, without repetitions."""
    structs: dict[type[msgspec.Struct], None] = {}
    waiting = list(types)
    while waiting:
        type_ = waiting.pop(0)
        if isinstance(type_, type) and issubclass(type_, msgspec.Struct):
            if type_ not in structs:
                structs[type_] = None
                waiting += [field.type for field in msgspec.structs.fields(type_)]
        else:
            waiting += get_args(type_)
    return list(structs)


def _convert_to_draft_07(schema: Any) -> Any:
    """Return a schema of msgspec in draft 7 of JSON Schema, the dialect of AsyncAPI."""
    if isinstance(schema, list):
        return [_convert_to_draft_07(item) for item in cast(list[Any], schema)]
    if not isinstance(schema, dict):
        return schema
    old = cast(Json, schema)
    new: Json = {
        key: _convert_to_draft_07(value) for key, value in old.items() if key not in _NEWER_KEYWORDS
    }
    if "prefixItems" in old:
        new["items"] = _convert_to_draft_07(old["prefixItems"])
        if "items" in old:
            new["additionalItems"] = old["items"]
    if "contentEncoding" in old:
        new["format"] = "binary"
        for bound in ("minLength", "maxLength"):  # of the base64 that JSON would need
            new.pop(bound, None)
    if isinstance(old.get("description"), str):
        new["description"] = inspect.cleandoc(old["description"])
    return new


def _list_members(union: Any) -> tuple[type[msgspec.Struct], ...]:
    return get_args(union)


def get_tag(event: type[events.Event]) -> str:
    """Return the name of an event on the wire."""
    return str(event.__struct_config__.tag)


def _format_name(struct: type[msgspec.Struct]) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", struct.__name__).lower()
