"""The generated pages agree with the source, and are complete."""

from __future__ import annotations

import importlib
import pkgutil
import re
from pathlib import Path

import msgspec
import pytest

import trialbus
import trialbus_services
from trialbus.study.spec import NOT_WRITTEN, StudySpec
from trialbus_services.config import settings
from trialbus_services.reference import config_page, messages_page
from trialbus_services.reference.__main__ import PAGES, main
from trialbus_services.reference.fields import REQUIRED, describe_fields, format_type, list_fields

DOCS = Path(__file__).parents[2] / "docs"

# Rooms that need an extra, or run when they are imported.
NOT_IMPORTED = re.compile(r"__main__$|^trialbus\.callbacks\.(?!evaluation|factory|optuna)")


class Base(msgspec.Struct):
    first: int
    """Of the base class."""


class Derived(Base, kw_only=True):
    second: str = ""
    """Under the field,
    over two lines."""

    third: float = 0.0


class Plain:
    """A class that is neither a struct nor a dataclass.

    Args:
        first: In the docstring,
            over two lines.
    """

    def __init__(self, first: int) -> None:
        self.first = first


def public_structs() -> list[type[msgspec.Struct]]:
    """Return every public struct of both packages."""
    modules = [
        importlib.import_module(module.name)
        for package in (trialbus, trialbus_services)
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
        if not NOT_IMPORTED.search(module.name)
    ]
    return list(
        {
            value
            for module in modules
            for name, value in vars(module).items()
            if isinstance(value, type)
            and issubclass(value, msgspec.Struct)
            and value.__module__ == module.__name__
            and not name.startswith("_")
        }
    )


@pytest.mark.parametrize("name", PAGES)
def test_a_generated_page_is_the_one_that_is_committed(name: str) -> None:
    committed = (DOCS / name).read_text(encoding="utf-8")
    assert committed == PAGES[name](), f"run ./scripts/reference and commit docs/{name}"


def test_the_command_writes_every_page_into_a_folder(tmp_path: Path) -> None:
    assert main([str(tmp_path)]) == 0
    written = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert written == set(PAGES)


def test_every_field_of_a_public_struct_is_described() -> None:
    structs = public_structs()
    assert StudySpec in structs
    assert settings.SECTIONS["worker"] in structs
    missing = {
        f"{struct.__name__}.{name}"
        for struct in structs
        for name in set(struct.__struct_fields__) - set(describe_fields(struct))
    }
    assert not missing, f"write a line under each of these fields: {sorted(missing)}"


def test_every_key_of_the_config_is_on_its_page() -> None:
    page = config_page.render()
    keys = {
        f"{section}.{name}"
        for section, struct in settings.SECTIONS.items()
        for name in struct.__struct_fields__
    }
    keys |= {f"study.{name}" for name in set(StudySpec.__struct_fields__) - NOT_WRITTEN}
    assert not {key for key in keys if f"| `{key}` |" not in page}


def test_links_between_generated_pages_lead_to_a_heading() -> None:
    pages = {"config.md": config_page.render(), "messages.md": messages_page.render()}
    headings = {
        name: {
            re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
            for heading in re.findall(r"^#+ (.*)$", page, re.MULTILINE)
        }
        for name, page in pages.items()
    }
    for name, page in pages.items():
        links = re.findall(r"\]\((\w+\.md)?#([\w-]+)\)", page)
        assert links
        for target, anchor in links:
            assert anchor in headings[target or name], (name, target, anchor)


def test_a_field_is_described_by_the_text_under_it_in_its_class_or_a_base() -> None:
    described = [(field.name, field.default, field.description) for field in list_fields(Derived)]
    assert described == [
        ("first", REQUIRED, "Of the base class."),
        ("second", "", "Under the field, over two lines."),
        ("third", 0.0, ""),
    ]


def test_an_argument_of_another_class_is_described_by_the_docstring() -> None:
    assert [(field.name, field.description) for field in list_fields(Plain)] == [
        ("first", "In the docstring, over two lines.")
    ]


@pytest.mark.parametrize(
    ("hint", "text"),
    [
        (int | None, "`int`, or `null`"),
        (bool | int | float | str | None, "scalar"),
        (list[dict[str, float]], "list of mapping of `float`"),
    ],
)
def test_a_type_is_written_in_words(hint: object, text: str) -> None:
    assert format_type(hint) == text
