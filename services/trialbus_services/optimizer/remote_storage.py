"""Storages of Optuna behind a server: a journal in Redis, and Optuna's gRPC storage."""

from __future__ import annotations

import warnings
from importlib.util import find_spec
from urllib.parse import urlsplit

from optuna.exceptions import ExperimentalWarning
from optuna.storages import BaseStorage, GrpcStorageProxy
from optuna.storages.journal import JournalRedisBackend, JournalStorage

from trialbus.errors import SpecError
from trialbus_services.config.secrets import mask_secrets

_GRPC = "grpc"
_ANSWER_S = 10.0
#: Package that each scheme of a URL needs.
_PACKAGES = {_GRPC: "grpcio", "redis": "redis", "rediss": "redis"}
_MODULES = {"grpcio": "grpc", "redis": "redis"}


def is_remote(url: str) -> bool:
    """Tell whether the URL of a storage is one of this module's."""
    return url.partition("://")[0] in _PACKAGES


def check_remote_url(url: str) -> None:
    """Check the URL of a storage behind a server, without asking the server.

    Raises:
        SpecError: The URL names no host and port, or a package is not installed.
    """
    masked = mask_secrets(url)
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = None
    if not parts.hostname or (port is None and parts.scheme == _GRPC):
        raise SpecError("storage.url", f"{masked!r} (expected {parts.scheme}://<host>:<port>)")
    package = _PACKAGES[parts.scheme]
    if find_spec(_MODULES[package]) is None:
        raise SpecError(
            "storage.url", f"{masked!r} needs the package {package!r} (pip install {package})"
        )


def open_remote_storage(url: str) -> BaseStorage:
    """Open the storage behind a server, and ask the server once.

    Raises:
        SpecError: The server does not answer.

    Source:
        `optuna.storages.GrpcStorageProxy`, `optuna.storages.journal.JournalRedisBackend`.
    """
    parts = urlsplit(url)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            if parts.scheme != _GRPC:
                return JournalStorage(JournalRedisBackend(url))
            storage = GrpcStorageProxy(host=parts.hostname or "", port=parts.port or 0)
        storage.wait_server_ready(timeout=_ANSWER_S)
    except Exception as error:  # the clients have exceptions of their own
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise SpecError(
            "storage.url",
            f"{mask_secrets(url)!r} cannot be opened: {reason} "
            "(expected a server that answers at this address)",
        ) from error
    return storage
