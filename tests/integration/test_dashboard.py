"""The database is plain Optuna's: Optuna's dashboard reads a running study."""

from __future__ import annotations

import json
import socket
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from support.commands import small_study
from support.processes import Bus
from support.until import until


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def test_the_stock_dashboard_shows_curves_that_grow(bus: Bus) -> None:
    port = free_port()
    study = bus.service("study", *small_study(steps=30, step_s=0.2, n_trials=2))
    until((bus.directory / "optuna_studies.db").exists, 30)

    def get(path: str) -> Any:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
                return json.load(answer)
        except (urllib.error.URLError, ConnectionError):
            return None

    def points() -> list[int]:
        detail: Any = get("/api/studies/1") or {"trials": []}
        return [len(trial["intermediate_values"]) for trial in detail["trials"]]

    def begun() -> bool:
        return bool(points()) and min(points()) > 0

    dashboard = Path(sys.executable).with_name("optuna-dashboard")
    options = ["--host", "127.0.0.1", "--port", str(port)]
    bus.run("dashboard", [str(dashboard), *options, "sqlite:///optuna_studies.db"])
    until(begun, 40, "the first intermediate values of both trials")
    before = points()
    until(lambda: sum(points()) > sum(before), 20, "more intermediate values")
    assert get("/api/studies")["study_summaries"][0]["study_name"] == "quadratic"
    assert study.wait(40) == 0, study.printed()
