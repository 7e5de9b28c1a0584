"""README and docs name only existing links, modules, commands, options, config keys and files."""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import inspect
import io
import pkgutil
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra._internal.utils import get_args_parser
from omegaconf import DictConfig, OmegaConf

from support.markdown import Page
from trialbus.study.validation import is_mapping
from trialbus_services.cli.main import COMMANDS, DRY_RUN, TOOLS, VERBOSE, main
from trialbus_services.config.composing.schema import build_schema
from trialbus_services.notify import Webhook
from trialbus_services.optimizer import attributes

REPOSITORY = Path(__file__).parents[2]
TREE = REPOSITORY / "config" / "trialbus_config"
PAGES = [
    Page(path)
    for path in [
        REPOSITORY / "README.md",
        REPOSITORY / "CONTRIBUTING.md",
        *sorted((REPOSITORY / "docs").rglob("*.md")),
    ]
]
FOLDERS = ("benchmarks", "bus", "config", "docs", "examples", "scripts", "services", "tests")
#: Dotted names in the docs that are no import paths: a group of entry points, and a file.
NOT_IMPORTED = {"trialbus.figures", "trialbus.mjs", "trialbus.pruners", "trialbus.samplers"}
OVERRIDE = re.compile(r"(?<![\w.$/{-])(?<!, )([a-z_]+(?:\.\w+)*)=(\[[\w,]*\]|\w*)")
#: Params of a reader's study that begin like a section of the config.
READERS_PARAMS = {("optimizer", "lr")}
SUBCOMMANDS = {"keys": ("init", "new")}
SECTIONS: dict[str, Any] = {str(name): node for name, node in build_schema().items()} | {
    "notify": None
}
#: Keys of a config that are in no section.
TOP_LEVEL = ("defaults", "log_level", "from_phase", "phases")
GROUPS = {
    folder.name: {path.stem for path in folder.glob("*.yaml")}
    for folder in TREE.iterdir()
    if any(folder.glob("*.yaml"))
}
ARGUMENTS = {
    group: {
        key
        for path in (TREE / group).glob("*.yaml")
        for key in yaml.safe_load(path.read_text(encoding="utf-8"))
    }
    for group in ("sampler", "pruner")
}
ATTRIBUTES = {value for value in vars(attributes).values() if isinstance(value, str)}
#: Files in a reader's own tree that the docs name, by group.
READERS_FILES = {
    group: {name for page in PAGES for name in re.findall(rf"conf/{group}/(\w+)\.yaml", page.text)}
    for group in GROUPS
}

Check = Callable[[Page], Iterator[tuple[str, bool]]]


def check_links(page: Page) -> Iterator[tuple[str, bool]]:
    """Yield every relative link, and whether the file and the heading exist."""
    for link in page.links:
        name, _, anchor = link.partition("#")
        path = page.path.parent / name if name else page.path
        if not anchor or not path.is_file():
            yield link, path.exists()
        else:
            yield link, anchor in (Page(path) if name else page).anchors


def check_names(page: Page) -> Iterator[tuple[str, bool]]:
    """Yield every dotted name below the packages, and whether an import succeeds."""
    for code in page.code:
        names = set(re.findall(r"(?<![\w./:-])trialbus(?:_\w+)?(?:\.[A-Za-z_]\w*)+", code))
        for name in sorted(names - NOT_IMPORTED):
            yield name, is_importable(name)


def check_imports(page: Page) -> Iterator[tuple[str, bool]]:
    """Yield every name that a block of Python imports, and whether the name exists."""
    for block in page.blocks:
        if block.language != "python":
            continue
        for node in ast.walk(ast.parse(block.code)):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("trialbus"):
                for alias in node.names:
                    yield (
                        f"{node.module}.{alias.name}",
                        is_importable(f"{node.module}.{alias.name}"),
                    )


@cache
def is_importable(name: str) -> bool:
    """Tell whether a dotted name is a module, or an attribute of a module."""
    try:
        if importlib.util.find_spec(name) is not None:
            return True  # a module of an extra is not imported: that takes seconds
    except ModuleNotFoundError:
        pass
    try:
        pkgutil.resolve_name(name)
    except (ImportError, AttributeError):
        return False
    return True


def find_commands(page: Page) -> Iterator[tuple[str, str]]:
    """Yield every `trialbus COMMAND` in the code of a page, with the rest of the line."""
    for code in page.code:
        for line in code.replace("\\\n", " ").splitlines():
            for match in re.finditer(r"(?:^|[(;&|] ?)\s*trialbus ([a-z][\w|-]*)([^#;&]*)", line):
                yield match[1], match[2]


def check_commands(page: Page) -> Iterator[tuple[str, bool]]:
    """Yield every `trialbus COMMAND`, and whether the command exists."""
    for command, _ in find_commands(page):
        for name in command.split("|"):
            yield f"trialbus {name}", name in {*COMMANDS, *TOOLS}


def check_options(page: Page) -> Iterator[tuple[str, bool]]:
    """Yield every `--option` of a command, and whether the option exists."""
    for command, rest in find_commands(page):
        if command in {*COMMANDS, *TOOLS}:
            for option in re.findall(r"(?<!\S)(--?[a-z][a-z-]*)", rest):
                yield f"trialbus {command} {option}", option in list_options(command)


@cache
def list_options(command: str) -> set[str]:
    """Return the options of a command and of all subcommands."""
    if command in COMMANDS:
        actions = get_args_parser()._actions
        return {option for action in actions for option in action.option_strings} | {
            DRY_RUN,
            VERBOSE,
        }
    output = io.StringIO()
    for arguments in ([command], *([command, name] for name in SUBCOMMANDS.get(command, ()))):
        with contextlib.redirect_stdout(output), pytest.raises(SystemExit):
            main([*arguments, "--help"])
    return set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", output.getvalue()))


def check_overrides(page: Page) -> Iterator[tuple[str, bool]]:
    """Yield every `group=file` and `section.key=...`, and whether file or key exists."""
    for code in page.code:
        for key, value in OVERRIDE.findall(code):
            if key.partition(".")[0] in GROUPS | SECTIONS.keys():
                yield f"{key}={value}", is_override(key, value)


def is_override(key: str, value: str) -> bool:
    """Return whether an override chooses files that exist, or changes a key that exists."""
    if key in GROUPS:
        names = [name for name in value.strip("[]").split(",") if name]
        return all(name in GROUPS[key] | READERS_FILES[key] for name in names)
    return is_key(*key.split("."))


def check_keys(page: Page) -> Iterator[tuple[str, bool]]:
    """Yield every `section.key` that a sentence names, and whether the key exists."""
    for span in page.spans:
        section, *names = span.split(".")
        is_key_path = re.fullmatch(r"[a-z_]+(\.\w+)+", span) and section in SECTIONS
        if is_key_path and names[-1] not in ("html", "json", "key", "py"):
            yield span, is_key(section, *names)


def check_yaml(page: Page) -> Iterator[tuple[str, bool]]:
    """Yield every key of a YAML block, and whether a section or a study has the key."""
    for block in page.blocks:
        if block.language != "yaml":
            continue
        data = yaml.safe_load(block.code)
        file = re.match(r"# conf/(\w+)/", block.code)
        if file is not None and file[1] in ("sampler", "pruner", "notify"):
            continue  # arguments of a user's class
        for key, value in data.items():
            if key not in TOP_LEVEL:
                section = key in SECTIONS and not (file and file[1] in SECTIONS)
                for path in list_paths(value, (key,) if section else ("study", key)):
                    yield ".".join(path), is_key(*path)


def list_paths(value: Any, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Yield the path of every key in a mapping."""
    yield path
    if is_mapping(value):
        for key, inner in value.items():
            yield from list_paths(inner, (*path, key))


def is_key(*path: str) -> bool:
    """Return whether a key is in the schema, or in a file of a group that has no schema."""
    section, *rest = path
    if path in READERS_PARAMS:
        return True
    if section in ("sampler", "pruner"):
        return not rest or rest[0] in ARGUMENTS[section] | {"type", "_target_", "seed"}
    if section == "notify":
        return len(rest) < 2 or rest[1] in inspect.signature(Webhook).parameters
    node: Any = SECTIONS[section]
    for name in rest:
        if not isinstance(node, DictConfig) or not len(node):
            return True  # a mapping of the user's
        if name not in list(node):
            return False
        node = None if OmegaConf.is_missing(node, name) else node[name]
    return True


def check_files(page: Page) -> Iterator[tuple[str, bool]]:
    """Yield every path below a folder of the repository, and whether the path exists."""
    pattern = re.compile(rf"(?<![\w./-])(?:\./)?((?:{'|'.join(FOLDERS)})/[\w./-]*[\w/])")
    for code in page.code:
        for path in pattern.findall(code):
            yield path, (REPOSITORY / path).exists() or (page.path.parent / path).exists()


def check_variables(page: Page) -> Iterator[tuple[str, bool]]:
    """Yield every variable of the environment, and whether the code has the variable."""
    for name in re.findall(r"\bTRIALBUS_[A-Z_]+\b", page.text):
        yield name, name in read_source()


def check_attributes(page: Page) -> Iterator[tuple[str, bool]]:
    """Yield every user attribute, and whether the code has the attribute."""
    for span in page.spans:
        if re.fullmatch(r"trialbus:\w+", span):
            yield span, span in ATTRIBUTES


@cache
def read_source() -> str:
    """Return the text of the packages and of the config."""
    files = [
        path for name in ("bus", "services", "config") for path in (REPOSITORY / name).rglob("*")
    ]
    return "".join(p.read_text(encoding="utf-8") for p in files if p.suffix in (".py", ".yaml"))


#: Every check, with a page on which it finds a fault, and how often the docs have at least what the
#: check looks for: a pattern that matches nothing proves nothing.
CHECKS: list[tuple[Check, str, int]] = [
    (check_links, "[a page](nowhere.md)", 30),
    (check_links, "# A title\n[a heading](#another-title)", 1),
    (check_names, "`trialbus.subscribed()`", 20),
    (check_imports, "```python\nfrom trialbus.testing import Bus\n```", 5),
    (check_commands, "```sh\ntrialbus studies\n```", 30),
    (check_options, "`trialbus events --until 3`", 10),
    (check_overrides, "`worker.slot=4`", 20),
    (check_overrides, "`trialbus study sampler=tpes`", 20),
    (check_keys, "`study.n_trial` and `bus.dir`", 10),
    (check_yaml, "```yaml\nworker: {slot: 4}\n```", 10),
    (check_yaml, "```yaml\nobjectiv: {metric: loss}\n```", 10),
    (check_files, "`examples/digit.py`", 5),
    (check_variables, "`$TRIALBUS_ENDPOINTS`", 5),
    (check_attributes, "`trialbus:errors`", 5),
]


@pytest.mark.parametrize(("check", "least"), {check: least for check, _, least in CHECKS}.items())
def test_what_the_docs_name_exists(check: Check, least: int) -> None:
    results = [
        (page.path.relative_to(REPOSITORY), name, exists)
        for page in PAGES
        for name, exists in check(page)
    ]
    assert [f"{path}: {name}" for path, name, exists in results if not exists] == []
    assert len(results) >= least


@pytest.mark.parametrize(("check", "text"), [(check, text) for check, text, _ in CHECKS])
def test_a_page_that_names_what_does_not_exist_is_noticed(check: Check, text: str) -> None:
    page = Page(REPOSITORY / "docs" / "page.md", text)
    assert not all(exists for _, exists in check(page))


def test_the_table_of_groups_has_every_file_of_the_tree() -> None:
    page = (REPOSITORY / "docs" / "configuration.md").read_text(encoding="utf-8")
    section = page.partition("## Groups\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`[^|]*) \| ([^|]*) \|", section, re.MULTILINE)
    table = {
        group: set(re.findall(r"`(\w+)`", files))
        for groups, files in rows
        for group in re.findall(r"`(\w+)`", groups)
    }
    assert table.keys() == GROUPS.keys()
    assert {group: files for group, files in table.items() if files != GROUPS[group]} == {}
