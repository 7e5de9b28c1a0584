"""Fixtures of integration tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.databases import Databases, Server, start_servers
from support.processes import Bus
from support.raw_client import RawClient
from support.suggesters import Start, start_suggesters


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    with start_servers() as url:
        yield url


@pytest.fixture
def databases(kind: str, tmp_path: Path, server: Server) -> Iterator[Databases]:
    """Empty storages of the kind that a test is parametrized with."""
    found = Databases(kind, tmp_path, server(kind))
    yield found
    found.close()


@pytest.fixture
def raw_client(bus: Bus) -> Iterator[RawClient]:
    """A client that speaks frames to the hub of `bus`, connected whenever that hub starts."""
    with RawClient(bus.endpoint) as raw_client:
        yield raw_client


@pytest.fixture
def start() -> Iterator[Start]:
    """Start suggesters that end with the test."""
    with start_suggesters() as start:
        yield start
