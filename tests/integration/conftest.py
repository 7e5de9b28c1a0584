"""Fixtures of tests that need databases, or a scripted worker."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from support.client import Client
from support.databases import Databases, Server, servers
from support.processes import Bus


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    with servers() as url:
        yield url


@pytest.fixture
def databases(kind: str, tmp_path: Path, server: Server) -> Iterator[Databases]:
    """Empty storages of the kind that a test is parametrized with."""
    found = Databases(kind, tmp_path, server(kind))
    yield found
    found.close()


@pytest.fixture
def client(bus: Bus) -> Iterator[Callable[[], Client]]:
    """Make scripted workers, closed at the end."""
    with ExitStack() as stack:

        def make() -> Client:
            client = Client(bus)
            stack.callback(client.close)
            return client

        yield make
