"""The folder of a hub's rings on this host: creates rings, and adopts the rings of dead processes.

The owning process holds a lock on the file of a ring while it lives; a ring without a lock belongs
to a dead process.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path

from trialbus.client.private_files import check_directory, make_directory, try_lock, unlock
from trialbus.client.shared_ring import RingError, RingEvent, SharedRing, encode_header

logger = logging.getLogger(__name__)

DEFAULT_BYTES = 4 << 20

_SUFFIX = ".ring"
_DAMAGED, _REFUSED = ".damaged", ".refused"


def locate_ring_directory(endpoint: str) -> Path:
    """Return the folder for the rings of this user's publishers to a hub, on this host."""
    shared = Path("/dev/shm")  # noqa: S108 - the owner of the folder below is checked
    base = shared if shared.is_dir() else Path(tempfile.gettempdir())
    name = hashlib.sha256(endpoint.encode()).hexdigest()[:16]
    return base / f"trialbus-{os.geteuid()}" / name


def create_ring(
    endpoint: str, publisher: bytes, capacity: int = DEFAULT_BYTES
) -> SharedRing | None:
    """Create the ring of a publisher; None if memory is short or the folder is another user's."""
    directory = locate_ring_directory(endpoint)
    path = directory / f"{publisher.hex()}{_SUFFIX}"
    unfinished = path.with_suffix(".new")
    capacity = -(-capacity // 8) * 8
    header = encode_header(capacity, publisher)
    try:
        make_directory(directory.parent)
        make_directory(directory)
        file = os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
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


def lock_directory(endpoint: str) -> int | None:
    """Lock the folder of the rings and return the descriptor; None if the lock is not available."""
    directory = locate_ring_directory(endpoint)
    path = directory / "adopter"
    try:
        check_directory(directory.parent)
        check_directory(directory)
        with contextlib.suppress(FileExistsError):
            path.touch(mode=0o600, exist_ok=False)
        return try_lock(path)
    except OSError:
        return None  # no shared memory, or not this user's: `create_ring` has warned


def adopt_rings(
    endpoint: str, *, without: Collection[Path] = ()
) -> Iterator[tuple[SharedRing, list[RingEvent]]]:
    """Lock and yield every ring of a dead process on this host, with the events of the ring.

    Args:
        endpoint: Address of the hub.
        without: Files of rings that stay for another adopter.
    """
    directory = locate_ring_directory(endpoint)
    try:
        check_directory(directory.parent)
        check_directory(directory)
        paths = [path for path in directory.iterdir() if path.suffix == _SUFFIX]
    except OSError:
        return
    for path in paths:
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
