"""Users' classes and functions are imported by path, with the same rule everywhere."""

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
    (tmp_path / "user_models.py").write_text(
        "import user_parts\n"
        f"from {__name__} import Base\n"
        "class Mine(Base):\n"
        "    class Inner(Base): pass\n"
        "def draw(): return user_parts.deep.name.COLOR\n"
    )
    (tmp_path / "user_parts" / "deep").mkdir(parents=True)
    (tmp_path / "user_parts" / "__init__.py").write_text("import user_parts.deep.name\n")
    (tmp_path / "user_parts" / "deep" / "name.py").write_text("COLOR = 'red'\n")
    (tmp_path / "user_broken.py").write_text("import no_such_library\n")
    (tmp_path / "user_script.py").write_text("import sys\nsys.exit(3)\n")
    (tmp_path / "user_recursive.py").write_text(
        "from trialbus.study.user_code import load_function\n"
        "draw = load_function('inner', 'user_models:draw')\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, __name__, sys.modules[__name__])
    modules = set(sys.modules)
    yield
    for name in set(sys.modules) - modules:
        del sys.modules[name]


def test_a_class_and_a_function_are_found_in_the_working_folder() -> None:
    assert issubclass(load_class("key", "user_models.Mine", Base), Base)
    assert load_class("key", "user_models:Mine.Inner", Base).__name__ == "Inner"
    assert load_function("key", "user_models:draw")() == "red"


def test_loading_leaves_the_search_path_unchanged() -> None:
    search_path = list(sys.path)
    load_function("key", "user_models.draw")
    with pytest.raises(SpecError):
        load_function("key", "user_broken.draw")
    assert sys.path == search_path


def test_a_module_may_load_another_module_while_it_is_imported() -> None:
    assert load_function("key", "user_recursive.draw")() == "red"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (None, "key: None is not an import path (expected module.Class or module:function)"),
        ("Mine", "key: 'Mine' is not an import path"),
        ("user models.Mine", "key: 'user models.Mine' is not an import path"),
        ("user_model.Mine", "; did you mean 'user_models'?"),
        ("user_models.Mime", "user_models has no 'Mime'; did you mean 'Mine'?"),
        ("user_models.Mine.Iner", "user_models.Mine has no 'Iner'; did you mean 'Inner'?"),
        ("user_parts.dep.name", "user_parts has no 'dep'; did you mean 'deep'?"),
        ("user_broken.draw", "ModuleNotFoundError: No module named 'no_such_library'"),
        ("user_script.draw", "'user_script.draw' cannot be imported: SystemExit: 3"),
        ("user_models.draw", "'user_models.draw' is not a subclass of "),
        ("user_parts.deep.name.COLOR", "'user_parts.deep.name.COLOR' is not a subclass of "),
    ],
)
def test_the_error_for_a_wrong_path_names_the_path_and_the_nearest_name(
    path: object, message: str
) -> None:
    with pytest.raises(SpecError) as caught:
        load_class("key", path, Base)
    assert str(caught.value).startswith("key: ")
    assert message in str(caught.value)


def test_a_value_that_cannot_be_called_is_no_function() -> None:
    with pytest.raises(SpecError, match=r"is 'red' .expected a function or a class"):
        load_function("key", "user_parts.deep.name.COLOR")
