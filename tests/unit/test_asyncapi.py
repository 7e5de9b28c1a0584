"""The AsyncAPI document agrees with the structs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import trialbus
from trialbus.messages import codec
from trialbus.protocol import frames
from trialbus.protocol.permissions import ROUTES
from trialbus_services.reference import asyncapi
from trialbus_services.reference.fields import describe_fields

DOCS = Path(__file__).parents[2] / "docs"


def references(node: Any) -> list[str]:
    if isinstance(node, list):
        return [reference for item in cast(list[Any], node) for reference in references(item)]
    if not isinstance(node, dict):
        return []
    inner = cast(dict[str, Any], node)
    reference = [inner["$ref"]] if "$ref" in inner else []
    return reference + [nested for value in inner.values() for nested in references(value)]


def test_the_asyncapi_document_is_the_one_of_the_code() -> None:
    committed = (DOCS / "asyncapi.json").read_text(encoding="utf-8")
    assert committed == asyncapi.render(), "run ./scripts/reference and commit docs/asyncapi.json"


def test_every_reference_of_the_asyncapi_document_leads_somewhere() -> None:
    document = asyncapi.build_document()
    targets = references(document)
    assert targets
    for reference in targets:
        node = document
        for part in reference.removeprefix("#/").split("/"):
            node = node[part]


def test_every_event_has_a_channel_with_its_topic_a_sender_and_a_receiver() -> None:
    document = asyncapi.build_document()
    event = trialbus.EvaluationComplete(study="s", trial=3, step=0, metrics={})
    address = document["channels"]["evaluation_complete"]["address"]
    assert address.format(study="s", trial=3) == event.topic
    address = document["channels"]["stop"]["address"]
    assert address.format(study="s") == trialbus.Stop(study="s").topic
    types = {tag for tag in codec.list_known_types() if not tag.startswith("x_")}
    assert types == set(ROUTES)
    for type_ in types:
        actions = {
            operation["action"]
            for operation in document["operations"].values()
            if operation["channel"]["$ref"] == f"#/channels/{type_}"
        }
        assert actions == {"send", "receive"}


def test_a_frame_is_described_field_by_field_as_it_is_written() -> None:
    fields = asyncapi.build_document()["components"]["schemas"]["Fetch"]["items"]
    assert [field["title"] for field in fields] == ["op", *frames.Fetch.__struct_fields__]
    assert fields[0]["enum"] == [2]
    assert [field["description"] for field in fields[1:]] == [
        describe_fields(frames.Fetch)[name] for name in frames.Fetch.__struct_fields__
    ]


def test_a_field_that_holds_a_struct_is_described_beside_the_reference() -> None:
    field = asyncapi.build_document()["components"]["schemas"]["Status"]["items"][-1]
    assert field["title"] == "status"
    assert field["description"] == describe_fields(frames.Status)["status"]
    assert field["allOf"] == [{"$ref": "#/components/schemas/HubStatus"}]
