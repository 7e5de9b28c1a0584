"""CURVE keys, the list of keys that may connect, and the rights of each key.

A folder of keys holds `<name>.key` (public and secret, readable by its owner alone), `<name>.pub`
(to be handed out) and `allowed.json`, which gives every known public key a role:

- `service`: everything. For the optimizer, reporters and those who submit studies.
- `worker`: request trials, and what a trainer may; of one study, if the entry names one.
- `trainer`: publish the events of trials, read prune commands and assignments; of one study, if
  the entry names one.
- `listener`: read everything, publish nothing.

Source:
    CurveZMQ (ZeroMQ RFC 26) for the encryption, ZAP (RFC 27) for who is let in.
"""

from __future__ import annotations

import logging
import os
import re
import stat
import time
from pathlib import Path
from typing import TypeAlias

import msgspec
import zmq

from trialbus.errors import SpecError
from trialbus.messages.codec import check_topic, decode_with
from trialbus.messages.topics import escape_study
from trialbus.protocol import frames
from trialbus.protocol.permissions import ROLES, SERVICES, USER_PREFIX, Permissions, Role
from trialbus.protocol.private_folder import make_private_folder, open_private_file
from trialbus.protocol.start_folder import resolve_from_start

logger = logging.getLogger(__name__)

KEY_VARIABLE = "TRIALBUS_KEY"
HUB_KEY_VARIABLE = "TRIALBUS_HUB_KEY"

_ALLOWED = "allowed.json"
_KEYS_FOLDER = "keys"  # of `trialbus keys`, beside the socket
_KEY_LENGTH = 40  # Z85 of 32 bytes

_Stamp: TypeAlias = tuple[int, int, int]
"""Time of the last change (ns), size (bytes) and inode of a file."""


class KeyPair(msgspec.Struct, frozen=True, kw_only=True):
    """A CURVE key pair, Z85-encoded, with the owner's name."""

    name: str
    """Name of the owner."""

    public: str
    """Public key."""

    secret: str
    """Secret key."""


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """Rights of a key's owner; `study` limits a worker or trainer to a single study."""

    name: str
    """Name of the key's owner."""

    role: Role
    """Role of the owner, which decides what they may send and read."""

    study: str | None = None
    """Name of the one study that a worker or trainer may take part in; None for all studies."""


class ClientKeys(msgspec.Struct, frozen=True, kw_only=True):
    """Keys of a client: the client's pair and the hub's public key."""

    own: KeyPair
    """Key pair of the client."""

    hub: str
    """Public key of the hub."""


def create_keys(folder: Path, name: str, role: Role, study: str | None = None) -> Path:
    """Make a key pair, add the public key to the list of allowed keys, and return the key file.

    Raises:
        SpecError: There is a key of that name already, the name cannot be that of a file, or the
            folder cannot be written.
    """
    if not re.fullmatch(r"\w[\w.@-]*", name):
        raise SpecError(
            "keys",
            f"{name!r} cannot be the name of a key (expected letters, digits, '_', '-', '.', '@')",
        )
    path = folder / f"{name}.key"
    if path.exists():
        raise SpecError("keys", f"{str(path)!r} exists already; choose another name, or remove it")
    try:
        make_private_folder(folder)
    except OSError as error:
        raise SpecError(
            "keys",
            f"{str(folder)!r}: {error.strerror} (expected a folder that this user may write)",
        ) from None
    public, secret = (key.decode() for key in zmq.curve_keypair())
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.encode(KeyPair(name=name, public=public, secret=secret)) + b"\n")
    with os.fdopen(open_private_file(path.with_suffix(".pub")), "w") as file:
        file.write(public + "\n")
    allowed = _read_allowed(folder / _ALLOWED) | {public: Grant(name=name, role=role, study=study)}
    unfinished = folder / f".{_ALLOWED}.new"
    os.close(open_private_file(unfinished))
    unfinished.write_bytes(msgspec.json.format(msgspec.json.encode(allowed), indent=2) + b"\n")
    unfinished.replace(folder / _ALLOWED)
    return path


def load_keys(path: Path | str) -> KeyPair:
    """Read a key file.

    Raises:
        SpecError: It is missing, malformed, or others than its owner may read it.
    """
    path = Path(path)
    try:
        mode = path.stat().st_mode
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise SpecError(
                "keys",
                f"{str(path)!r} can be read by others (mode {stat.S_IMODE(mode):o}); chmod 600",
            )
        return decode_with(_key_decoder, path.read_bytes())
    except FileNotFoundError:
        raise SpecError(
            "keys",
            f"there is no {str(path)!r}; `trialbus keys init` makes the keys of a bus, "
            "`trialbus keys new NAME --role ROLE` another one",
        ) from None
    except msgspec.DecodeError as error:
        raise SpecError("keys", f"{str(path)!r} is not a key file: {error}") from None
    except OSError as error:
        raise SpecError("keys", f"{str(path)!r} cannot be read: {error.strerror}") from None


def load_client_keys() -> ClientKeys | None:
    """Return the keys that the environment names, or None without such variables.

    `$TRIALBUS_KEY` is the path of a key file, `$TRIALBUS_HUB_KEY` the hub's public key or the path
    of a file that holds it.

    Raises:
        SpecError: Only one of the two is set, or one cannot be used.
    """
    own, hub = os.environ.get(KEY_VARIABLE), os.environ.get(HUB_KEY_VARIABLE)
    if not own and not hub:
        return None
    if not own or not hub:
        raise SpecError(f"${KEY_VARIABLE}, ${HUB_KEY_VARIABLE}", "set both of them, or neither")
    hub_file = resolve_from_start(hub)
    if len(hub) != _KEY_LENGTH or hub_file.exists():
        try:
            hub = hub_file.read_text().strip()
        except OSError as error:
            raise SpecError(
                f"${HUB_KEY_VARIABLE}",
                f"{hub!r} is neither a key nor a file with one ({error.strerror}); "
                "`trialbus keys init` makes the keys that a bus needs",
            ) from None
    return ClientKeys(own=load_keys(resolve_from_start(own)), hub=hub)


def locate_keys() -> dict[str, str]:
    """Return the variables of the environment that name keys, with absolute paths."""
    values = {name: os.environ.get(name) for name in (KEY_VARIABLE, HUB_KEY_VARIABLE)}
    return {
        name: str(path) if (path := resolve_from_start(value)).exists() else value
        for name, value in values.items()
        if value
    }


def explain_silence(endpoint: str, keys: ClientKeys | None) -> str:
    """Return what keys may have to do with a hub that does not answer; empty if nothing.

    A hub does not answer a client whose keys are missing or wrong.

    Args:
        endpoint: Address of the hub.
        keys: Keys of the client.
    """
    if keys is not None:
        return (
            "a hub does not answer a client with wrong keys: it has to allow the key "
            f"{keys.own.name!r}, and ${HUB_KEY_VARIABLE} has to be its own"
        )
    socket = endpoint.removeprefix("ipc://")
    if socket != endpoint and not (Path(socket).parent / _KEYS_FOLDER / _ALLOWED).exists():
        return ""
    return (
        "a hub with keys does not answer a client without: "
        f"set ${KEY_VARIABLE} and ${HUB_KEY_VARIABLE}, or bus=curve for a service"
    )


class Gatekeeper:
    """Checks which keys may connect to a hub, and which messages a peer may send.

    The list of keys is read again after each change. An unreadable list, perhaps half written,
    leaves the previous list in force; without a list no key may connect.

    Args:
        folder: The folder of keys.
        name: Name of the hub's own key in it.
    """

    def __init__(self, folder: Path | str, name: str = "hub") -> None:
        self._path = Path(folder) / _ALLOWED
        self.keys = load_keys(Path(folder) / f"{name}.key")
        self._read = self._stamp()
        self._unreadable: _Stamp | None = None
        self._allowed = _read_allowed(self._path)
        self._banned_until: dict[str, float] = {}

    def ban(self, public: str, seconds: float) -> None:
        """Refuse new connections with a public key for some seconds."""
        self._banned_until[public] = time.monotonic() + seconds

    def callback(self, domain: str, key: bytes) -> bool:
        """Tell whether the owner of a public key (Z85) may connect; asked by the ZAP thread."""
        public = key.decode()
        banned_until = self._banned_until.get(public, 0.0)
        return time.monotonic() >= banned_until and self.grant(public) is not None

    def grant(self, public: str) -> Grant | None:
        """Return the grant of a public key; None for a key that is not on the list."""
        stamp = self._stamp()
        if stamp != self._read:
            self._follow(stamp)
        return self._allowed.get(public)

    def _follow(self, stamp: _Stamp) -> None:
        try:
            self._allowed, self._read = _read_allowed(self._path), stamp
        except SpecError as error:
            if stamp != self._unreadable:
                self._unreadable = stamp
                logger.warning("%s; the previous list stays in force", error)

    def forbids(self, public: str, message: frames.ToHub) -> str | None:
        """Return why the owner of a public key may not send a message, or None."""
        grant = self.grant(public)
        if grant is None:
            return "the key is not, or no longer, allowed"
        permissions = ROLES[grant.role]
        is_named = isinstance(message, frames.Fetch) and message.name is not None
        if type(message) not in permissions.frames or (
            is_named and not permissions.has_durable_names
        ):
            return (
                f"{grant.name!r} is a {grant.role}, which may not {type(message).__name__.lower()}"
            )
        match message:
            case frames.Hello() if not permissions.has_all_sessions:
                return _find_forbidden_session(grant, permissions, message)
            case frames.Publish():
                return _find_forbidden_event(grant, permissions, message)
            case frames.Fetch() if permissions.reads is not None:
                return _find_forbidden_topic(grant, message.patterns, permissions.reads, "read")
            case _:
                return None

    def _stamp(self) -> _Stamp:
        """Return the stamp of the list's file, which differs after every change.

        The time alone is not enough: a file written twice in a tick of the clock keeps the time.
        """
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return (0, 0, 0)
        except OSError:
            return (-1, -1, -1)  # it cannot be read either
        return (status.st_mtime_ns, status.st_size, status.st_ino)


def _find_forbidden_topic(
    grant: Grant, topics: list[str], types: frozenset[str], verb: str
) -> str | None:
    """Return why a peer may not publish or read the first forbidden topic, or None."""
    for topic in topics:
        type_, _, rest = topic.partition("/")
        if type_ not in types and not (verb == "publish" and type_.startswith(USER_PREFIX)):
            return f"{grant.name!r} is a {grant.role}, which may not {verb} {type_!r}"
        if grant.study is not None and rest.partition("/")[0] != escape_study(grant.study):
            return f"{grant.name!r} is a {grant.role} of study {grant.study!r} only"
    return None


def _find_forbidden_event(
    grant: Grant, permissions: Permissions, message: frames.Publish
) -> str | None:
    """Return why a peer may not publish the first forbidden event, or None."""
    if permissions.publishes is not None:
        topics = [topic for topic, _ in message.events]
        reason = _find_forbidden_topic(grant, topics, permissions.publishes, "publish")
        if reason is not None:
            return reason
    try:
        for topic, body in message.events:
            check_topic(topic, body)
    except msgspec.DecodeError as error:
        return str(error)
    return None


def _find_forbidden_session(
    grant: Grant, permissions: Permissions, hello: frames.Hello
) -> str | None:
    """Return why a peer may not register the requested session, or None."""
    if permissions.sessions is None:
        is_permitted = hello.kind not in SERVICES
    else:
        is_permitted = hello.kind in permissions.sessions
    if not is_permitted or hello.exclusive:
        return f"{grant.name!r} is a {grant.role}, which may not register as {hello.kind!r}"
    if grant.study not in (None, hello.study):
        return f"{grant.name!r} is a {grant.role} of study {grant.study!r} only"
    return None


def _read_allowed(path: Path) -> dict[str, Grant]:
    try:
        return decode_with(_grants_decoder, path.read_bytes())
    except FileNotFoundError:
        return {}
    except msgspec.DecodeError as error:
        raise SpecError("keys", f"{str(path)!r} is not a list of keys: {error}") from None
    except OSError as error:
        raise SpecError("keys", f"{str(path)!r} cannot be read: {error.strerror}") from None


_key_decoder = msgspec.json.Decoder(KeyPair)
_grants_decoder = msgspec.json.Decoder(dict[str, Grant])
