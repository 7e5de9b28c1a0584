"""Fixtures of tests that need databases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.databases import Databases, Server, servers


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
