"""The hub keeps the promises of docs/protocol.md."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import trialbus
from support.processes import Bus
from support.until import until
from trialbus.client.admin import hub_status
from trialbus.client.link import Link

DOCS = Path(__file__).parents[2] / "docs"
PARSER = "@asyncapi/parser@3.6.3"

needs_node = pytest.mark.skipif(
    shutil.which("npm") is None and "CI" not in os.environ, reason="there is no Node.js here"
)


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
        until(lambda: hub_status(link).parked, describe="the listener's fetch")
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
