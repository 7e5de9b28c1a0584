"""The hub enforces the permissions of the AsyncAPI document."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import msgspec
import pytest

from trialbus.protocol import frames
from trialbus.protocol.permissions import ROUTES, Party, Role
from trialbus.protocol.security import Gatekeeper, create_keys, load_keys
from trialbus_services.reference import asyncapi

_TYPES = [*ROUTES, "x_gpu_hot"]

# Parties for which a role acts. A key of a service may be of any party. A worker sends what killed
# trainings left, and its trainings may use its key.
_PARTIES: dict[Role, tuple[Party, ...]] = {
    "service": get_args(Party),
    "worker": ("worker", "trainer"),
    "trainer": ("trainer",),
    "listener": ("listener",),
}


@pytest.fixture(scope="module")
def gatekeeper(tmp_path_factory: pytest.TempPathFactory) -> tuple[Gatekeeper, dict[Role, str]]:
    folder: Path = tmp_path_factory.mktemp("keys")
    create_keys(folder, "hub", "service")
    publics = {role: load_keys(create_keys(folder, role, role)).public for role in get_args(Role)}
    return Gatekeeper(folder), publics


@pytest.mark.parametrize("role", get_args(Role))
@pytest.mark.parametrize("type_", _TYPES)
def test_hub_and_document_agree_on_who_sends_and_reads_an_event(
    gatekeeper: tuple[Gatekeeper, dict[Role, str]], role: Role, type_: str
) -> None:
    keeper, publics = gatekeeper
    operations = asyncapi.build_document()["operations"]
    name = "own" if type_.startswith("x_") else type_
    body = msgspec.msgpack.encode({"type": type_, "study": "s", "trial": 1})
    publish = frames.Publish(b"p", 1, [(f"{type_}/s/1", msgspec.Raw(body))])
    fetch = frames.Fetch(1, 0, [f"{type_}/s/*"])
    may_publish = keeper.forbids(publics[role], publish) is None
    may_read = keeper.forbids(publics[role], fetch) is None
    is_sender = any(f"{party}_sends_{name}" in operations for party in _PARTIES[role])
    is_receiver = any(f"{party}_receives_{name}" in operations for party in _PARTIES[role])
    assert may_publish == (role == "service" or is_sender)
    assert may_read == (role == "service" or is_receiver)
