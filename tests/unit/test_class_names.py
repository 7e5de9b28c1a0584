"""No two classes share a name, so that a name says which class is meant."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

from trialbus_services.config.settings import SECTIONS

ROOT = Path(__file__).parents[2]
#: One in the module of each training framework: users import the one of theirs.
SHARED = {"TrialCallback"}


def public_classes() -> dict[str, list[str]]:
    """Return the files of the public classes of both packages, by the class's name."""
    files: dict[str, list[str]] = defaultdict(list)
    for package in ("bus/trialbus", "services/trialbus_services"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.parse(path.read_text()).body:
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    files[node.name].append(str(path.relative_to(ROOT)))
    return files


def test_no_two_public_classes_share_a_name() -> None:
    shared = {name: files for name, files in public_classes().items() if len(files) > 1}
    assert {name: files for name, files in shared.items() if name not in SHARED} == {}


def test_every_section_of_the_config_is_called_settings() -> None:
    assert [type_ for type_ in SECTIONS.values() if not type_.__name__.endswith("Settings")] == []
