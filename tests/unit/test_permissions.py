"""The hub enforces what the AsyncAPI document describes."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import msgspec
import pytest

from trialbus.protocol import frames
from trialbus.protocol.permissions import ROUTES, Role
from trialbus.protocol.security import Gatekeeper, load_keys, new_keys
from trialbus_services.reference import asyncapi

_TYPES = [*ROUTES, "x_gpu_hot"]


@pytest.fixture(scope="module")
def gatekeeper(tmp_path_factory: pytest.TempPathFactory) -> tuple[Gatekeeper, dict[Role, str]]:
    folder: Path = tmp_path_factory.mktemp("keys")
    new_keys(folder, "hub", "service")
    publics = {role: load_keys(new_keys(folder, role, role)).public for role in get_args(Role)}
    return Gatekeeper(folder), publics


@pytest.mark.parametrize("role", get_args(Role))
@pytest.mark.parametrize("type_", _TYPES)
def test_hub_and_document_agree_on_who_sends_and_reads_an_event(
    gatekeeper: tuple[Gatekeeper, dict[Role, str]], role: Role, type_: str
) -> None:
    keeper, publics = gatekeeper
    operations = asyncapi.build_document()["operations"]
    name = "own" if type_.startswith("x_") else type_
    publish = frames.Publish(b"p", 1, [(f"{type_}/s/1", msgspec.Raw(b"\x80"))])
    fetch = frames.Fetch(1, 0, [f"{type_}/s/*"])
    may_publish = keeper.forbids(publics[role], publish) is None
    may_read = keeper.forbids(publics[role], fetch) is None
    # A key of a service may be of an optimizer, a worker, a reporter or a client: of any party.
    assert may_publish == (role == "service" or f"{role}_sends_{name}" in operations)
    assert may_read == (role == "service" or f"{role}_receives_{name}" in operations)
