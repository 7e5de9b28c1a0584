"""docs/architecture.md draws the rooms that the code has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import trialbus
import trialbus_services
from trialbus_services.reference.rooms import BEGIN, draw_rooms, find_imports, replace_drawing

PAGE = Path(__file__).parents[2] / "docs" / "architecture.md"
BUS = Path(str(trialbus.__file__)).parent
SERVICES = Path(str(trialbus_services.__file__)).parent


def test_the_drawing_in_the_docs_is_that_of_the_code() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert replace_drawing(page) == page, "run ./scripts/reference"


def test_a_page_without_the_enclosing_lines_is_refused() -> None:
    with pytest.raises(ValueError, match="end of the drawing"):
        replace_drawing(f"# Architecture\n{BEGIN}\n")


def test_every_module_is_drawn_with_a_sentence() -> None:
    drawing = draw_rooms()
    for path in (*BUS.rglob("*.py"), *SERVICES.rglob("*.py")):
        if path.name != "__init__.py" and path.parent not in (BUS, SERVICES):
            lines = [line for line in drawing.splitlines() if line.split()[:1] == [path.name]]
            assert any(len(line.split()) > 2 for line in lines), path


def test_client_and_hub_do_not_meet() -> None:
    assert "hub" not in find_imports(BUS, "client")
    assert "client" not in find_imports(BUS, "hub")


def test_every_file_that_the_text_names_is_there() -> None:
    text = PAGE.read_text(encoding="utf-8").partition(BEGIN)[2]
    named = set(re.findall(r"`(\w+/[\w/]+\.py)`", text))
    assert named
    missing = {n for n in named if not ((BUS / n).exists() or (SERVICES / n).exists())}
    assert not missing
