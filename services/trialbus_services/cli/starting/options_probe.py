"""Options probe: runs a script up to the place where it reads its options, and prints them as JSON.

Started as a program of its own, `python options_probe.py OUTPUT SCRIPT`, in the environment of the
script; it imports nothing of trialbus. The options go to the file OUTPUT.
"""

from __future__ import annotations

import argparse
import json
import os
import runpy
import sys
from pathlib import Path
from typing import Any

_output = ""


def main() -> None:
    """Run the script of the command line with every reader of options replaced."""
    global _output
    _output, script = sys.argv[1], sys.argv[2]
    _replace_argparse()
    _replace_click()
    _replace_hydra(Path(script).parent)
    sys.argv = [script]
    sys.path[0] = str(Path(script).parent.absolute())
    runpy.run_path(script, run_name="__main__")


def _report(kind: str, options: list[dict[str, Any]]) -> None:
    Path(_output).write_text(json.dumps({"kind": kind, "options": options}, default=str))
    os._exit(0)  # not an exception: a script may catch every one


def _replace_argparse() -> None:
    def read(parser: argparse.ArgumentParser, *_: object, **__: object) -> None:
        actions = parser._actions  # noqa: SLF001 - argparse has no other list of its options
        _report("argparse", [_describe_action(a) for a in actions if _is_value(a)])

    argparse.ArgumentParser.parse_args = read  # type: ignore[assignment,method-assign]
    argparse.ArgumentParser.parse_known_args = read  # type: ignore[assignment,method-assign]


def _is_value(action: argparse.Action) -> bool:
    return action.dest not in ("help", "version", argparse.SUPPRESS)


def _describe_action(action: argparse.Action) -> dict[str, Any]:
    is_switch = action.nargs == 0
    long = [flag for flag in action.option_strings if flag.startswith("--")]
    return {
        "name": (long or action.option_strings or [action.dest])[0].lstrip("-"),
        "positional": not action.option_strings,
        "default": None if action.default is argparse.SUPPRESS else action.default,
        "type": getattr(action.type, "__name__", None),
        "choices": None if action.choices is None else list(action.choices),
        "switch": is_switch,
        "negative": isinstance(action, argparse.BooleanOptionalAction),
        "required": action.required,
        "help": action.help or "",
    }


def _replace_click() -> None:
    try:
        import click
    except ImportError:
        return

    def read(command: Any, *_: object, **__: object) -> None:
        _report("click", [_describe_click(param) for param in command.params])

    click.Command.main = read  # type: ignore[assignment,method-assign]
    try:
        from typer.core import TyperCommand
    except ImportError:
        return
    TyperCommand.main = read  # type: ignore[assignment,method-assign]


def _describe_click(param: Any) -> dict[str, Any]:
    long = [flag for flag in param.opts if flag.startswith("--")]
    default = param.default() if callable(param.default) else param.default
    return {
        "name": (long or param.opts)[0].lstrip("-"),
        "positional": param.param_type_name == "argument",
        "default": default if isinstance(default, bool | int | float | str) else None,
        "type": {"integer": "int"}.get(param.type.name, param.type.name),
        "choices": list(getattr(param.type, "choices", ())) or None,
        "switch": bool(getattr(param, "is_flag", False)),
        "negative": bool(param.secondary_opts),
        "required": param.required,
        "help": getattr(param, "help", None) or "",
    }


def _replace_hydra(folder: Path) -> None:
    try:
        import hydra
    except ImportError:
        return

    def read(config_path: str | None = None, config_name: Any = None, **_: object) -> Any:
        def decorate(_: object) -> Any:
            def run(*_: object, **__: object) -> None:
                _report("hydra", _compose(folder / (config_path or "."), config_name))

            return run

        return decorate

    hydra.main = read


def _compose(folder: Path, name: str) -> list[dict[str, Any]]:
    import hydra
    from omegaconf import OmegaConf

    with hydra.initialize_config_dir(str(folder.absolute()), version_base=None):
        config = OmegaConf.to_container(hydra.compose(name))
    options: list[dict[str, Any]] = []
    _list_values(options, "", config)
    return options


def _list_values(options: list[dict[str, Any]], prefix: str, config: Any) -> None:
    for key, value in config.items():
        if isinstance(value, dict):
            _list_values(options, f"{prefix}{key}.", value)
        else:
            options.append({"name": f"{prefix}{key}", "default": value})


if __name__ == "__main__":
    main()
