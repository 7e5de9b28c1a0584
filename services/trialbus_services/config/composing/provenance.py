"""Where the values of a composed config were set: a line of a file, or the command line."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import yaml
from hydra.core.config_loader import ConfigLoader
from hydra.core.default_element import ResultDefault
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.plugins.config_source import ConfigSource
from hydra.types import RunMode
from omegaconf.errors import OmegaConfBaseException

from trialbus_services.config.composing.yaml_position import find_position, iterate_values
from trialbus_services.config.secrets import mask_secrets

_MISSING = "???"


class ConfigSources:
    """The files and overrides that a config was composed of; finds where a value was set.

    The files are read again, but only after an error.

    Args:
        loader: Loader with which Hydra composed the config.
        config_name: Name of the primary config.
        overrides: Overrides of the command line.
        files: Files of configs that are in no folder of Hydra's search path, by name.
        place: Where the overrides stand.
    """

    def __init__(
        self,
        loader: ConfigLoader,
        config_name: str,
        overrides: Sequence[str],
        files: Mapping[str, Path],
        place: str,
    ) -> None:
        self.place = place
        self._loader = loader
        self._files = files
        self._config_name = config_name
        self._overrides = list(overrides)

    def describe_value(self, key: str) -> str | None:
        """Return where the value of a key was set last, as text; None if the source is unknown.

        A missing value is described by the innermost section around the value, a section by its
        file and the overrides of its values.

        Args:
            key: Dotted path of the value.
        """
        path = _split_key(key)
        overrides = self._list_value_overrides()
        covering = [text for text, target in overrides if target == path[: len(target)]]
        if covering:
            return f"{self.place}: {mask_secrets(covering[-1])}"
        inner = [text for text, target in overrides if target[: len(path)] == path]
        sources = [self._describe_setting_file(path)] if path else []
        if inner:
            sources.append(f"{self.place}: {' '.join(mask_secrets(inner))}")
        return "; ".join(filter(None, sources)) or None

    def describe_choice(self, group: str, name: str) -> str | None:
        """Return where a file of a group was chosen: in an override, or in another file."""
        matches = [re.match(r"[+~]*([\w/]+)(@[\w.:]+)?=([\w/.-]+)$", o) for o in self._overrides]
        choices = [match for match in matches if match]
        for choice in reversed(choices):
            if choice[1] == group and choice[3] == name:
                return f"{self.place}: {choice[0]}"
        configs = [self._config_name, *(f"{choice[1]}/{choice[3]}" for choice in choices)]
        for config in reversed(configs):
            file = self._find_file(config)
            for path, text in iterate_values(file) if file else ():
                is_choice = path[:1] == ("defaults",) or (
                    config in self._files and path == (group,)
                )
                if is_choice and text == name:
                    return self.describe_file(config, path)
        return None

    def describe_file(self, config: str, path: Sequence[str] = ()) -> str | None:
        """Return the file of a config such as `study/mine`, with the line of a value in the file.

        Args:
            config: Name of the config.
            path: Path of the value in the file; empty for the file as a whole.
        """
        source = self._find_source(config)
        file = self._find_file(config)
        if source is None or file is None:
            return None
        if source.scheme() == "pkg":
            shown_path = Path(f"{source.path}/{config}.yaml")
        else:
            shown_path = shorten_path(file)
        depth, line = find_position(file, path)
        return f"in {shown_path}, line {line}" if depth else f"in {shown_path}"

    def list_missing(self, choices: Mapping[str, str]) -> list[str]:
        """Return the keys that still have `???`, the mark of a missing value.

        OmegaConf keeps a value, default included, that is merged with a later `???`.

        Args:
            choices: File of each group of the composed config, as Hydra keeps them.
        """
        if not self._has_missing_marks(choices):
            return []
        is_missing: dict[tuple[str, ...], bool] = {}
        for default in self._list_defaults():
            file = self._find_file(default.config_path) if default.config_path else None
            if file is None:
                continue
            package = tuple(_split_key(default.package or ""))
            for path_in_file, text in iterate_values(file):
                path = package + path_in_file
                # A later file that writes into a missing mapping gives the mapping a value.
                is_missing.update(dict.fromkeys((path[:n] for n in range(1, len(path))), False))
                is_missing[path] = text == _MISSING
        targets = [tuple(target) for _, target in self._list_value_overrides()]
        return [
            ".".join(path)
            for path, missing in is_missing.items()
            if missing and not any(path[: len(t)] == t or t[: len(path)] == path for t in targets)
        ]

    def _describe_setting_file(self, path: list[str]) -> str | None:
        """Return the last file that sets a value, or the most of the path to the value."""
        best: tuple[int, str, list[str]] | None = None
        for default in self._list_defaults():
            package = _split_key(default.package or "")
            if default.config_path is None or path[: len(package)] != package:
                continue
            file = self._find_file(default.config_path)
            if file is None:
                continue
            path_in_file = path[len(package) :]
            depth = len(package) + find_position(file, path_in_file)[0]
            if depth and (best is None or depth >= best[0]):
                best = (depth, default.config_path, path_in_file)
        return self.describe_file(best[1], best[2]) if best else None

    def _has_missing_marks(self, choices: Mapping[str, str]) -> bool:
        """Tell whether a file may contain `???`: to parse all files takes as long as composing."""
        if any(_MISSING.encode() in file.read_bytes() for file in self._files.values()):
            return True
        chosen = {f"{group.partition('@')[0]}/{name}" for group, name in choices.items()}
        for source in self._loader.get_sources():
            folder = _find_folder(source)
            for file in folder.rglob("*.yaml") if folder else ():
                config = file.relative_to(folder or file).with_suffix("").as_posix()
                is_from_user = source.provider not in ("hydra", "main")
                if (
                    is_from_user or config in {*chosen, self._config_name}
                ) and _MISSING.encode() in file.read_bytes():
                    return True
        return False

    def _list_defaults(self) -> Sequence[ResultDefault]:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # composing has reported them
                defaults_list = self._loader.compute_defaults_list(
                    self._config_name, self._overrides, RunMode.RUN
                )
        except (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError):
            return []
        return defaults_list.defaults

    def _list_value_overrides(self) -> list[tuple[str, list[str]]]:
        """Return the overrides that set values, each with the path of the value."""
        value_overrides: list[tuple[str, list[str]]] = []
        sources = self._loader.get_sources()
        for text in self._overrides:
            try:
                override = OverridesParser.create().parse_override(text)
            except HydraException:
                continue
            if not any(source.is_group(override.key_or_group) for source in sources):
                value_overrides.append((text, _split_key(override.key_or_group)))
        return value_overrides

    def _find_source(self, config: str) -> ConfigSource | None:
        return next((s for s in self._loader.get_sources() if s.is_config(config)), None)

    def _find_file(self, config: str) -> Path | None:
        if config in self._files:
            return self._files[config]
        source = self._find_source(config)
        return _find_local_file(source, config) if source else None


def shorten_path(file: Path) -> Path:
    """Return the path of a file relative to the working directory, if the file is inside."""
    return file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file


def _find_local_file(source: ConfigSource, config: str) -> Path | None:
    """Return the file of a config on this machine; None for a config of another source."""
    folder = _find_folder(source)
    if folder is None:
        return None
    return next((f for f in (folder / f"{config}.yaml", folder / config) if f.is_file()), None)


def _find_folder(source: ConfigSource) -> Path | None:
    if source.scheme() == "file":
        return Path(source.path)
    if source.scheme() != "pkg":
        return None
    package, *subfolders = source.path.strip("/").replace(".", "/").split("/")
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0], *subfolders)


def _split_key(key: str) -> list[str]:
    return re.findall(r"[^.\[\]]+", key)
