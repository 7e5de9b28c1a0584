"""Users' classes and functions are imported by their path, in one way everywhere."""

from __future__ import annotations

import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from trialbus import SpecError
from trialbus.study.user_code import load_class, load_function


class Base:
    """A class that users' classes inherit from."""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    """A working folder with a module and a package of the user's own."""
    (tmp_path / "own_models.py").write_text(
        "import own_parts\n"
        f"from {__name__} import Base\n"
        "class Mine(Base):\n"
        "    class Inner(Base): pass\n"
        "def draw(): return own_parts.deep.name.COLOR\n"
    )
    (tmp_path / "own_parts" / "deep").mkdir(parents=True)
    (tmp_path / "own_parts" / "__init__.py").write_text("import own_parts.deep.name\n")
    (tmp_path / "own_parts" / "deep" / "name.py").write_text("COLOR = 'red'\n")
    (tmp_path / "own_broken.py").write_text("import no_such_library\n")
    (tmp_path / "own_recursive.py").write_text(
        "from trialbus.study.user_code import load_function\n"
        "draw = load_function('inner', 'own_models:draw')\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, __name__, sys.modules[__name__])
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_a_class_and_a_function_are_found_in_the_working_folder() -> None:
    assert issubclass(load_class("key", "own_models.Mine", Base), Base)
    assert load_class("key", "own_models:Mine.Inner", Base).__name__ == "Inner"
    assert load_function("key", "own_models:draw")() == "red"


def test_the_search_path_is_afterwards_as_it_was() -> None:
    before = list(sys.path)
    load_function("key", "own_models.draw")
    with pytest.raises(SpecError):
        load_function("key", "own_broken.draw")
    assert sys.path == before


def test_a_module_that_loads_another_while_it_is_imported_does_not_wait_for_itself() -> None:
    assert load_function("key", "own_recursive.draw")() == "red"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (None, "key: None is not an import path (expected module.Class or module:function)"),
        ("Mine", "key: 'Mine' is not an import path"),
        ("own models.Mine", "key: 'own models.Mine' is not an import path"),
        ("own_model.Mine", "; did you mean 'own_models'?"),
        ("own_models.Mime", "own_models has no 'Mime'; did you mean 'Mine'?"),
        ("own_models.Mine.Iner", "own_models.Mine has no 'Iner'; did you mean 'Inner'?"),
        ("own_parts.dep.name", "own_parts has no 'dep'; did you mean 'deep'?"),
        ("own_broken.draw", "ModuleNotFoundError: No module named 'no_such_library'"),
        ("own_models.draw", "'own_models.draw' is not a subclass of "),
        ("own_parts.deep.name.COLOR", "'own_parts.deep.name.COLOR' is not a subclass of "),
    ],
)
def test_what_cannot_be_loaded_is_named_with_the_nearest(path: object, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        load_class("key", path, Base)
    assert str(caught.value).startswith("key: ")
    assert message in str(caught.value)


def test_a_value_that_cannot_be_called_is_no_function() -> None:
    with pytest.raises(SpecError, match=r"is 'red' .expected a function or a class"):
        load_function("key", "own_parts.deep.name.COLOR")
