"""Rooms: the tree of packages and modules, drawn from the code for docs/architecture.md.

A room is a folder of modules, or a single module, directly under `trialbus` or `trialbus_services`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from graphlib import TopologicalSorter
from pathlib import Path

import trialbus

#: The generated part of docs/architecture.md lies between these two lines.
BEGIN = "<!-- drawn from the code by ./scripts/reference -->"
END = "<!-- end of the drawing -->"

_PACKAGES: Mapping[str, Path] = {
    "bus": Path(str(trialbus.__file__)).parent,
    "services": Path(__file__).parents[1],
}
_COLUMN = 34


def replace_drawing(page: str) -> str:
    """Return the text of docs/architecture.md with a new drawing of the rooms.

    Raises:
        ValueError: The page lacks one of the two lines that enclose the drawing.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no line {END if begin else BEGIN!r}")
    return f"{before}{BEGIN}\n{draw_rooms()}\n{END}{after}"


def draw_rooms() -> str:
    """Return a Markdown tree of each package's rooms and a table of the rooms' imports."""
    sections: list[str] = []
    for source_root, folder in _PACKAGES.items():
        imports = {room: find_imports(folder, room) for room in _list_rooms(folder)}
        # Rooms that import nothing come first, as one would read them.
        graph = {room: rooms & imports.keys() for room, rooms in imports.items()}
        order = list(TopologicalSorter(graph).static_order())
        sections += [
            f"### `{source_root}/{folder.name}`",
            "",
            "```",
            *(line for room in order for line in _draw_room(folder, room)),
            "```",
            "",
            "| room | imports |",
            "|---|---|",
            *(f"| `{room}` | {_format_rooms(imports[room], order)} |" for room in order),
            "",
        ]
    return "\n".join(sections).rstrip()


def find_imports(package: Path, room: str) -> frozenset[str]:
    """Return the names of the rooms that a room's modules import.

    Args:
        package: Folder of the package that has the room.
        room: Name of the room: of a folder, or of a module without its suffix.

    Returns:
        Rooms of the same package by name, rooms of the other package as `trialbus.hub`.
    """
    modules = sorted((package / room).rglob("*.py")) or [package / f"{room}.py"]
    imported = {".".join(name.split(".")[:2]) for path in modules for name in _read_imports(path)}
    inside = {name.partition(".")[2] for name in imported if name.startswith(f"{package.name}.")}
    outside = {name for name in imported if name.startswith("trialbus.")} - {
        f"{package.name}.{name}" for name in inside
    }
    return frozenset((inside & set(_list_rooms(package))) | outside) - {room}


def _list_rooms(package: Path) -> list[str]:
    folders = [path.parent.name for path in package.glob("*/__init__.py")]
    modules = [path.stem for path in package.glob("*.py") if not path.stem.startswith("__")]
    return sorted(folders + modules)


def _read_imports(module: Path) -> Iterator[str]:
    """Yield every dotted name that a module imports, also inside functions and type checks."""
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        match node:
            case ast.ImportFrom(module=str(source)):
                yield from (f"{source}.{alias.name}" for alias in node.names)
            case ast.Import():
                yield from (alias.name for alias in node.names)
            case _:
                pass


def _draw_room(package: Path, room: str) -> Iterator[str]:
    folder = package / room
    if folder.is_dir():
        yield from _draw_folder(folder, 0)
    else:
        yield _draw_line(f"{room}.py", folder.with_suffix(".py"))


def _draw_folder(folder: Path, depth: int) -> Iterator[str]:
    indent = "  " * depth
    yield _draw_line(f"{indent}{folder.name}/", folder / "__init__.py")
    for path in sorted(folder.glob("*.py")):
        if path.name != "__init__.py":
            yield _draw_line(f"{indent}  {path.name}", path)
    for path in sorted(folder.glob("*/__init__.py")):
        yield from _draw_folder(path.parent, depth + 1)


def _draw_line(label: str, module: Path) -> str:
    """Return a line of the tree: a name and the first line of the module's docstring."""
    docstring = ast.get_docstring(ast.parse(module.read_text(encoding="utf-8"))) or ""
    return f"{label:<{_COLUMN}}{docstring.partition(chr(10))[0]}".rstrip()


def _format_rooms(rooms: frozenset[str], order: list[str]) -> str:
    ordered = [room for room in order if room in rooms] + sorted(rooms - set(order))
    return ", ".join(f"`{room}`" for room in ordered) or "nothing"
