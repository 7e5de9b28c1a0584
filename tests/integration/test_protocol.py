"""What docs/ tells strangers about the protocol holds."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest

import trialbus
from support.processes import Bus
from support.until import until
from trialbus import events, wire
from trialbus.link import Link
from trialbus.status import hub_status
from trialbus_services import asyncapi

DOCS = Path(__file__).parents[2] / "docs"
PARSER = "@asyncapi/parser@3.6.3"

needs_node = pytest.mark.skipif(
    shutil.which("npm") is None and "CI" not in os.environ, reason="there is no Node.js here"
)


def references(node: Any) -> list[str]:
    if isinstance(node, list):
        return [found for item in cast(list[Any], node) for found in references(item)]
    if not isinstance(node, dict):
        return []
    inner = cast(dict[str, Any], node)
    own = [inner["$ref"]] if "$ref" in inner else []
    return own + [found for value in inner.values() for found in references(value)]


def test_the_asyncapi_document_is_the_one_of_the_code() -> None:
    committed = (DOCS / "asyncapi.json").read_text(encoding="utf-8")
    assert committed == asyncapi.render(), "run ./scripts/asyncapi and commit docs/asyncapi.json"


def test_every_reference_of_the_asyncapi_document_leads_somewhere() -> None:
    document = asyncapi.document()
    found = references(document)
    assert found
    for reference in found:
        node = document
        for part in reference.removeprefix("#/").split("/"):
            node = node[part]


def test_every_event_has_a_channel_with_its_topic_a_sender_and_a_receiver() -> None:
    document = asyncapi.document()
    event = trialbus.EvaluationComplete(study="s", trial=3, step=0, metrics={})
    address = document["channels"]["evaluation_complete"]["address"]
    assert address.format(study="s", trial=3) == event.topic
    address = document["channels"]["stop"]["address"]
    assert address.format(study="s") == trialbus.Stop(study="s").topic
    types = {str(type_.__struct_config__.tag) for type_ in events.BUILT_IN}
    assert types == set(asyncapi.ROUTES)
    for type_ in types:
        actions = {
            operation["action"]
            for operation in document["operations"].values()
            if operation["channel"]["$ref"] == f"#/channels/{type_}"
        }
        assert actions == {"send", "receive"}


def test_a_frame_is_described_field_by_field_as_it_is_written() -> None:
    fields = asyncapi.document()["components"]["schemas"]["Fetch"]["items"]
    assert [field["title"] for field in fields] == ["op", *wire.Fetch.__struct_fields__]
    assert fields[0]["enum"] == [2]


@needs_node
@pytest.mark.timeout(180)
def test_the_parser_of_asyncapi_finds_nothing_wrong(tmp_path: Path) -> None:
    (tmp_path / "package.json").write_text('{"private": true}')
    subprocess.run(
        ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", PARSER],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        timeout=120,
    )
    (tmp_path / "check.mjs").write_text(
        """
import { readFileSync } from "node:fs";
import { Parser } from "@asyncapi/parser";
const { document, diagnostics } = await new Parser().parse(readFileSync(process.argv[2], "utf8"));
for (const d of diagnostics) console.log(d.severity, d.path.join("."), d.message);
process.exit(document && diagnostics.every(d => d.severity > 1) ? 0 : 1);  // 0 error, 1 warning
"""
    )
    done = subprocess.run(
        ["node", "check.mjs", str(DOCS / "asyncapi.json")],
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_listener_of_the_page_prints_evaluations_and_outlives_the_hub(bus: Bus) -> None:
    page = (DOCS / "protocol.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```$", page, flags=re.DOTALL | re.MULTILINE)
    (bus.directory / "listener.py").write_text(code)
    hub = bus.hub()
    listener = bus.run("listener", [sys.executable, "listener.py", bus.endpoint])
    with Link(bus.endpoint) as link, trialbus.Publisher(link=link) as publisher:
        until(lambda: hub_status(link)["parked"], describe="the listener's fetch")
        for step in range(3):
            if step == 2:
                hub.restart()
            event = trialbus.EvaluationComplete(
                study="s/1", trial=4, step=step, metrics={"loss": 0.5}
            )
            publisher.publish(event)
            line = f"evaluation_complete/s%2F1/4 {step} {{'loss': 0.5}}"
            until(lambda line=line: line in listener.printed().splitlines())
    assert listener.running
    assert len(listener.printed().splitlines()) == 3
