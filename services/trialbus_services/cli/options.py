"""Options that several subcommands have."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from trialbus.errors import HubUnavailableError, SpecError
from trialbus.protocol.endpoint import DEFAULT_ENDPOINT, ENDPOINT_VARIABLE

#: Options by the key of the config that each option takes precedence over.
_OPTIONS = {"bus.endpoint": "--endpoint", "storage.url": "--storage", "report.dir": "--dir"}


def add_endpoint(parser: argparse.ArgumentParser) -> None:
    """Add the option `--endpoint` to a parser."""
    parser.add_argument(
        "--endpoint",
        help=f"address of the hub (default: ${ENDPOINT_VARIABLE}, else {DEFAULT_ENDPOINT})",
    )


def parse_natural(text: str) -> int:
    """Return the whole number from 0 in a text, for `argparse`.

    Raises:
        ArgumentTypeError: The text is not such a number.
    """
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0")
    return int(text)


def name_source(error: HubUnavailableError, source: str) -> HubUnavailableError:
    """Return the error with the option or key that names the address of the hub."""
    return HubUnavailableError(error.endpoint, error.waited_s, source=source, hint=error.hint)


def name_option(error: SpecError, arguments: Sequence[str]) -> SpecError:
    """Return an error about a key as an error about the option on the command line, if any."""
    option = _OPTIONS.get(error.key, "")
    return SpecError(option, error.problem) if is_used(option, arguments) else error


def is_used(option: str, arguments: Sequence[str]) -> bool:
    """Return whether an option is on the command line."""
    return any(option and argument.partition("=")[0] == option for argument in arguments)
