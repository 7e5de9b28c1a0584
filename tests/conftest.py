"""Fixtures for all tests."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from support.client import Client
from support.processes import Bus

# A run in the background is given SIGINT as ignored, and so would be all that it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def bus() -> Iterator[Bus]:
    """A folder with a hub and services until the end of the test; a failure shows the output."""
    # Not tmp_path: the path of a socket file has to be short.
    with tempfile.TemporaryDirectory(prefix="trialbus-") as directory:
        found = Bus(Path(directory))
        try:
            yield found
        finally:
            found.stop()
            for name, process in found.processes.items():
                print(f"--- {name}:\n{process.printed()}")


@pytest.fixture
def client(bus: Bus) -> Iterator[Callable[..., Client]]:
    """Make scripted workers, closed at the end."""
    with ExitStack() as stack:

        def make(**options: float) -> Client:
            client = Client(bus, **options)
            stack.callback(client.close)
            return client

        yield make
