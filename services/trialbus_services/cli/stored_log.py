"""Stored log of a bus whose hub has ended, for the commands that otherwise ask a hub."""

from __future__ import annotations

import sys
from pathlib import Path

from trialbus.hub.stored_log import has_stored_log
from trialbus.protocol.endpoint import is_served, resolve

_IPC = "ipc://"


def find_stored_log(endpoint: str | None) -> Path | None:
    """Return the folder of the log of a hub that has ended; None if a hub serves, or without a log.

    The folder is that of the hub's socket, as with the default `bus.endpoint`.

    Args:
        endpoint: Address of the hub; None means `$TRIALBUS_ENDPOINT` or the default.
    """
    address = resolve(endpoint)
    if not address.startswith(_IPC) or is_served(address):
        return None
    folder = Path(address.removeprefix(_IPC)).parent
    return folder if has_stored_log(folder) else None


def print_source(folder: Path) -> None:
    """Print on standard error that what follows is read from the disk."""
    print(f"no hub runs; this is what its log in {folder} has", file=sys.stderr, flush=True)
