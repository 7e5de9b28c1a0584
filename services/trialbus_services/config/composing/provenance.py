"""Where the values of a composed config come from: a line of a file, or the command line."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import yaml
from hydra.core.config_loader import ConfigLoader
from hydra.core.default_element import ResultDefault
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.plugins.config_source import ConfigSource
from hydra.types import RunMode
from omegaconf.errors import OmegaConfBaseException

_OPEN = "???"


class Sources:
    """Finds who set a value. Reads the files again, which only a mistake asks for.

    Args:
        loader: Hydra's, as it composed the config.
        config_name: The primary config.
        overrides: Of the command line.
    """

    def __init__(self, loader: ConfigLoader, config_name: str, overrides: Sequence[str]) -> None:
        self._loader = loader
        self._config_name = config_name
        self._overrides = list(overrides)

    def of(self, key: str) -> str | None:
        """Return where the value at a dotted path was set last; None if nobody can be named.

        For a value that is not there it is where the innermost section around it was set. For a
        section it is its file, and the overrides within.
        """
        path = _parts(key)
        set_here = [text for text, at in self._values() if at == path[: len(at)]]
        if set_here:
            return f"on the command line: {set_here[-1]}"
        within = [text for text, at in self._values() if at[: len(path)] == path]
        said = [self._file_with(path)] if path else []
        if within:
            said.append(f"on the command line: {' '.join(within)}")
        return "; ".join(place for place in said if place) or None

    def unset(self, choices: Mapping[str, str]) -> list[str]:
        """Return the paths that are left open, by `???`, where they were written last.

        OmegaConf does not: over a value, and a default is one, it takes `???` for nothing.

        Args:
            choices: Of the composed config, file by group, as Hydra has them.
        """
        if not self._any_open(choices):
            return []
        found: dict[tuple[str, ...], bool] = {}
        for default in self._defaults():
            source = self._source(default.config_path) if default.config_path else None
            file = _local(source, default.config_path) if source and default.config_path else None
            if file is not None:
                package = tuple(_parts(default.package or ""))
                for inner, text in _leaves(_composed(file)):
                    path = package + inner
                    # What a later file writes into a mapping that was open closes it.
                    found.update(dict.fromkeys((path[:n] for n in range(1, len(path))), False))
                    found[path] = text == _OPEN
        given = [tuple(at) for _, at in self._values()]
        return [
            ".".join(path)
            for path, is_open in found.items()
            if is_open and not any(path[: len(at)] == at or at[: len(path)] == path for at in given)
        ]

    def choice(self, group: str, name: str) -> str | None:
        """Return where a file of a group was chosen: an override, or a file that one chose."""
        chosen = [re.match(r"[+~]*([\w/]+)(@[\w.:]+)?=([\w/.-]+)$", o) for o in self._overrides]
        for found in filter(None, reversed(chosen)):
            if found[1] == group and found[3] == name:
                return f"on the command line: {found[0]}"
        configs = [self._config_name, *(f"{found[1]}/{found[3]}" for found in chosen if found)]
        for config in reversed(configs):
            source = self._source(config)
            file = _local(source, config) if source else None
            for path, text in _leaves(_composed(file)) if file else ():
                if path[0] == "defaults" and text == name:
                    return self.file(config, path)
        return None

    def file(self, config: str, path: Sequence[str] = ()) -> str | None:
        """Return the file of a config (`study/mine`), with the line of a value in it."""
        source = self._source(config)
        if source is None:
            return None
        file = _local(source, config)
        if file is None:
            return None
        shown = file
        if source.scheme() == "pkg":
            shown = Path(f"{source.path}/{config}.yaml")
        elif file.is_relative_to(Path.cwd()):
            shown = file.relative_to(Path.cwd())
        found, line = _find(file, path)
        return f"in {shown}, line {line}" if found else f"in {shown}"

    def _file_with(self, path: list[str]) -> str | None:
        """Return the file that set a value, or the most of the way to it."""
        best: tuple[int, str, list[str]] | None = None
        for default in self._defaults():
            package = _parts(default.package or "")
            if default.config_path is None or path[: len(package)] != package:
                continue
            source = self._source(default.config_path)
            file = _local(source, default.config_path) if source else None
            if file is None:
                continue
            inner = path[len(package) :]
            found, _ = _find(file, inner)
            depth = len(package) + found
            if depth and (best is None or depth >= best[0]):
                best = (depth, default.config_path, inner)
        return self.file(best[1], best[2]) if best else None

    def _any_open(self, choices: Mapping[str, str]) -> bool:
        """Tell whether a value may be left open: reading all files takes as long as composing."""
        chosen = {f"{group.partition('@')[0]}/{name}" for group, name in choices.items()}
        for source in self._loader.get_sources():
            folder = _folder(source)
            for file in folder.rglob("*.yaml") if folder else ():
                config = file.relative_to(folder or file).with_suffix("").as_posix()
                ours = source.provider in ("hydra", "main")
                if (
                    config in {*chosen, self._config_name} or not ours
                ) and _OPEN.encode() in file.read_bytes():
                    return True
        return False

    def _defaults(self) -> Sequence[ResultDefault]:
        try:
            found = self._loader.compute_defaults_list(
                self._config_name, self._overrides, RunMode.RUN
            )
        except (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError):
            return []
        return found.defaults

    def _values(self) -> list[tuple[str, list[str]]]:
        """Return the overrides that set values, each with the path of its value."""
        found: list[tuple[str, list[str]]] = []
        for text in self._overrides:
            try:
                override = OverridesParser.create().parse_override(text)
            except HydraException:
                continue
            sources = self._loader.get_sources()
            if not any(source.is_group(override.key_or_group) for source in sources):
                found.append((text, _parts(override.key_or_group)))
        return found

    def _source(self, config: str) -> ConfigSource | None:
        return next((s for s in self._loader.get_sources() if s.is_config(config)), None)


def _local(source: ConfigSource, config: str) -> Path | None:
    """Return the file of a config, if it is one on this machine."""
    folder = _folder(source)
    if folder is None:
        return None
    return next((f for f in (folder / f"{config}.yaml", folder / config) if f.is_file()), None)


def _folder(source: ConfigSource) -> Path | None:
    if source.scheme() == "file":
        return Path(source.path)
    if source.scheme() != "pkg":
        return None
    package, *inner = source.path.strip("/").replace(".", "/").split("/")
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0], *inner)


def _find(file: Path, path: Sequence[str]) -> tuple[int, int]:
    """Return how far down a path a YAML file goes, and the line where it ends (from 1)."""
    node = _composed(file)
    found, line = 0, 1
    for part in path:
        inner = _entry(node, part)
        if inner is None:
            break
        line, node = inner
        found += 1
    return found, line


def _composed(file: Path) -> yaml.Node | None:
    try:
        text = file.read_text(encoding="utf-8")
        found: yaml.Node | None = cast(Any, yaml).compose(text, Loader=yaml.CSafeLoader)
    except (yaml.YAMLError, OSError, UnicodeDecodeError):
        return None
    return found


def _leaves(node: yaml.Node | None) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            for path, text in _leaves(value):
                yield (str(key.value), *path), text
    elif isinstance(node, yaml.SequenceNode):
        for at, value in enumerate(node.value):
            for path, text in _leaves(value):
                yield (str(at), *path), text
    elif isinstance(node, yaml.Node):
        yield (), node.value


def _entry(node: yaml.Node | None, part: str) -> tuple[int, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == part:
                return key.start_mark.line + 1, value
    if isinstance(node, yaml.SequenceNode) and part.isdigit() and int(part) < len(node.value):
        value = node.value[int(part)]
        return value.start_mark.line + 1, value
    return None


def _parts(key: str) -> list[str]:
    return re.findall(r"[^.\[\]]+", key)
