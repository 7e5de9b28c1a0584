"""Positions in YAML files: the values of a file by path, and the line of each value."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import yaml


def find_position(file: Path, path: Sequence[str]) -> tuple[int, int]:
    """Return how many parts of a path a YAML file has, and the line of the last part (from 1)."""
    node = _parse(file)
    depth, line = 0, 1
    for part in path:
        entry = _get_entry(node, part)
        if entry is None:
            break
        line, node = entry
        depth += 1
    return depth, line


def iterate_values(file: Path) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield the path and the text of every scalar of a YAML file, if the file is readable."""
    return _iterate_scalars(_parse(file))


def _parse(file: Path) -> yaml.Node | None:
    try:
        text = file.read_text(encoding="utf-8")
        node: yaml.Node | None = cast(Any, yaml).compose(text, Loader=yaml.CSafeLoader)
    except (yaml.YAMLError, OSError, UnicodeDecodeError):
        return None
    return node


def _iterate_scalars(node: yaml.Node | None) -> Iterator[tuple[tuple[str, ...], str]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            for path, text in _iterate_scalars(value):
                yield (str(key.value), *path), text
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            for path, text in _iterate_scalars(value):
                yield (str(index), *path), text
    elif isinstance(node, yaml.Node):
        yield (), node.value


def _get_entry(node: yaml.Node | None, part: str) -> tuple[int, yaml.Node] | None:
    """Return the line and the node of an entry of a mapping or a list."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == part:
                return key.start_mark.line + 1, value
    if isinstance(node, yaml.SequenceNode) and part.isdigit() and int(part) < len(node.value):
        value = node.value[int(part)]
        return value.start_mark.line + 1, value
    return None
