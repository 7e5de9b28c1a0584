"""The folder of a hub's rings on this host: creates rings, and adopts the rings of dead processes.

The owning process holds a lock on the file of a ring while it lives; a ring without a lock belongs
to a dead process. The rings of the processes that a worker starts for an attempt lie in a folder of
their own, a group. Whoever holds the lock of a folder adopts its rings: of a group its worker, and
anybody once the worker is dead.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path

from trialbus.client.private_files import check_directory, make_directory, try_lock, unlock
from trialbus.client.shared_ring import RingError, RingEvent, SharedRing, encode_header

logger = logging.getLogger(__name__)

DEFAULT_BYTES = 4 << 20

#: Environment variable of the processes of an attempt, set by the worker: their group of rings.
GROUP_VARIABLE = "TRIALBUS_OUTBOX_GROUP"

_SUFFIX, _UNFINISHED = ".ring", ".new"
_LOCK = "adopter"
_GROUP_NAME = re.compile(r"[0-9a-f]{1,64}")
_N_TRIES = 3  # to create a file in a group's folder that another process removes as empty
_DAMAGED, _REFUSED = ".damaged", ".refused"


def locate_ring_directory(endpoint: str) -> Path:
    """Return the folder for the rings of this user's publishers to a hub, on this host."""
    shared = Path("/dev/shm")  # noqa: S108 - the owner of the folder below is checked
    base = shared if shared.is_dir() else Path(tempfile.gettempdir())
    name = hashlib.sha256(endpoint.encode()).hexdigest()[:16]
    return base / f"trialbus-{os.geteuid()}" / name


def locate_group(endpoint: str, group: str) -> Path:
    """Return the folder of a group of rings; the hub's own folder for the group without a name."""
    return locate_ring_directory(endpoint) / group


def find_group() -> str:
    """Return the name of this process's group of rings; empty outside of a worker's training."""
    name = os.environ.get(GROUP_VARIABLE, "")
    return name if _GROUP_NAME.fullmatch(name) else ""


def list_groups(endpoint: str) -> list[str]:
    """Return the names of the groups that have a folder on this host."""
    try:
        return [
            entry.name
            for entry in os.scandir(locate_ring_directory(endpoint))
            if _GROUP_NAME.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False)
        ]
    except OSError:
        return []


def create_ring(
    endpoint: str, publisher: bytes, capacity: int = DEFAULT_BYTES, *, base: int = 1
) -> SharedRing | None:
    """Create the ring of a publisher; None if memory is short or the folder is another user's.

    Args:
        endpoint: Address of the hub.
        publisher: Id of the publisher.
        capacity: Bytes of records.
        base: Sequence number of the first event.
    """
    group = find_group()
    path = locate_group(endpoint, group) / f"{publisher.hex()}{_SUFFIX}"
    unfinished = path.with_suffix(_UNFINISHED)
    capacity = -(-capacity // 8) * 8
    header = encode_header(capacity, publisher, base)
    try:
        file = _create_file(unfinished, endpoint, group)
        try:
            if sys.platform == "linux":
                # Reserve the memory now: a write to a full memory file system kills the process.
                os.posix_fallocate(file, 0, len(header) + capacity)
            else:
                os.ftruncate(file, len(header) + capacity)
            os.write(file, header)
        finally:
            os.close(file)
        lock = try_lock(unfinished)
        if lock is None:
            return None
        unfinished.rename(path)
        return SharedRing(path, lock)
    except OSError as error:
        logger.warning(
            "no shared memory for the outbox (%s): unsent events will not survive this process",
            error,
        )
        with contextlib.suppress(OSError):
            unfinished.unlink()
        return None


def _create_file(path: Path, endpoint: str, group: str) -> int:
    for n_left in reversed(range(_N_TRIES)):
        _make_group(endpoint, group)
        try:
            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            if not n_left:
                raise
    raise AssertionError(path)


def _check_group(endpoint: str, group: str) -> None:
    for folder in _list_folders(endpoint, group):
        check_directory(folder)


def _make_group(endpoint: str, group: str) -> None:
    for folder in _list_folders(endpoint, group):
        make_directory(folder)


def _list_folders(endpoint: str, group: str) -> list[Path]:
    """Return the private folders down to a group of rings, the outermost first."""
    directory = locate_ring_directory(endpoint)
    return [directory.parent, directory, *([directory / group] if group else ())]


def lock_directory(endpoint: str, group: str = "", *, create: bool = False) -> int | None:
    """Lock a folder of rings and return the descriptor; None if the lock is not available.

    Args:
        endpoint: Address of the hub.
        group: Name of a group of rings; empty for the rings of processes without a group.
        create: Whether to create the folder, which does not exist yet.
    """
    path = locate_group(endpoint, group) / _LOCK
    try:
        if create:
            return _create_locked(path, endpoint)
        _check_group(endpoint, group)
        with contextlib.suppress(FileExistsError):
            path.touch(mode=0o600, exist_ok=False)
        return try_lock(path)
    except OSError:
        return None  # no shared memory, or not this user's: `create_ring` has warned


def _create_locked(path: Path, endpoint: str) -> int | None:
    """Create the folder of a group under another name, so that no adopter sees it unlocked."""
    _make_group(endpoint, "")
    unfinished = path.parent.with_suffix(_UNFINISHED)
    unfinished.mkdir(mode=0o700)
    (unfinished / path.name).touch(mode=0o600, exist_ok=False)
    lock = try_lock(unfinished / path.name)
    unfinished.rename(path.parent)
    return lock


def remove_group(endpoint: str, group: str) -> None:
    """Remove the folder of a group whose lock this process holds, unless rings are left in it."""
    directory = locate_group(endpoint, group)
    with contextlib.suppress(OSError):
        names = {path.suffix: path for path in directory.iterdir()}
        if not names.keys() & {_SUFFIX, _DAMAGED, _REFUSED}:
            shutil.rmtree(directory, ignore_errors=True)


def list_rings(endpoint: str, group: str = "") -> list[Path]:
    """Return the files of the rings in a folder; empty if the folder is not this user's.

    Args:
        endpoint: Address of the hub.
        group: Name of a group of rings; empty for the rings of processes without a group.
    """
    try:
        _check_group(endpoint, group)
        return [path for path in locate_group(endpoint, group).iterdir() if path.suffix == _SUFFIX]
    except OSError:
        return []


def adopt_rings(
    endpoint: str, group: str = "", *, without: Collection[Path] = ()
) -> Iterator[tuple[SharedRing, list[RingEvent]]]:
    """Lock and yield every ring of a dead process in a folder, with the events of the ring.

    Args:
        endpoint: Address of the hub.
        group: Name of a group of rings; empty for the rings of processes without a group.
        without: Files of rings that stay for another adopter.
    """
    for path in list_rings(endpoint, group):
        if path in without:
            continue
        adopted = _adopt_ring(path)
        if adopted is None:
            continue
        ring, events = adopted
        if events:
            yield ring, events
        else:
            ring.close()


def _adopt_ring(path: Path) -> tuple[SharedRing, list[RingEvent]] | None:
    try:
        lock = try_lock(path)
    except PermissionError as error:
        _put_aside(path, _REFUSED, f"{error}, so the events may be forged")
        return None
    if lock is None:
        return None
    try:
        ring = SharedRing(path, lock)
        events = ring.read_events()
    except (RingError, OSError) as error:
        _put_aside(path, _DAMAGED, str(error))
        unlock(lock)
        return None
    if ring.damaged:
        copy = path.with_suffix(_DAMAGED)
        with contextlib.suppress(OSError):  # a full file system
            shutil.copyfile(path, copy)
            copy.chmod(0o600)
        logger.warning(
            "of the events that publisher %s left in shared memory when it died, %d are damaged and"
            " not sent, and %d are intact and sent; a copy is in %s",
            ring.publisher.hex(),
            ring.damaged,
            len(events),
            copy,
        )
    return ring, events


def _put_aside(path: Path, suffix: str, reason: str) -> None:
    aside = path.with_suffix(suffix)
    path.rename(aside)
    logger.warning(
        "the outbox of a publisher that died was not read, its unsent events are not sent: %s;"
        " it was renamed to %s",
        reason,
        aside,
    )
