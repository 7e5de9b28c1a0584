"""The AsyncAPI document says what the structs say."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import trialbus
from trialbus import events
from trialbus_services import asyncapi

FILE = Path(__file__).parents[2] / "docs" / "asyncapi.json"


def references(data: Any) -> list[str]:
    if isinstance(data, dict):
        own = [data["$ref"]] if "$ref" in data else []  # pyright: ignore[reportUnknownVariableType]
        return own + [ref for value in data.values() for ref in references(value)]  # pyright: ignore[reportUnknownVariableType]
    return [ref for value in data for ref in references(value)] if isinstance(data, list) else []  # pyright: ignore[reportUnknownVariableType]


def test_the_file_is_what_is_generated() -> None:
    assert FILE.read_text() == asyncapi.text(), "run ./scripts/asyncapi"


def test_every_type_that_can_be_decoded_is_in_it() -> None:
    known = {tag for tag in events.known_types() if not tag.startswith("x_")}
    assert known == set(asyncapi.document()["channels"])


def test_every_reference_leads_somewhere() -> None:
    document = asyncapi.document()
    found = references(document)
    assert len(found) > 50
    for reference in found:
        place: Any = document
        for part in reference.removeprefix("#/").split("/"):
            place = place[part]


def test_the_address_of_a_channel_is_the_topic_of_its_event() -> None:
    channels = asyncapi.document()["channels"]
    event = trialbus.EvaluationComplete(study="digits", trial=17, step=0, metrics={})
    address = channels["evaluation_complete"]["address"]
    assert re.sub(r"\{trial\}", "17", address.replace("{study}", "digits")) == event.topic
    stop = channels["stop"]["address"].replace("{study}", "digits")
    assert stop == trialbus.Stop(study="digits").topic


def test_it_is_json_of_version_three() -> None:
    assert json.loads(FILE.read_text())["asyncapi"] == "3.0.0"
