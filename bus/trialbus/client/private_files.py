"""Files and folders in shared memory that belong to this user alone, and locks on such files.

The paths are predictable and `/dev/shm` is writable by everyone. Another local user could create a
folder or a file there first, so owner and mode are checked before anything is read.
"""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path

_OTHERS = 0o077


def make_directory(path: Path) -> None:
    """Create a folder that only this user can enter, or check the folder that exists.

    Raises:
        PermissionError: The folder is a link, or another user's.
    """
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        check_directory(path)


def check_directory(path: Path) -> None:
    """Check that a folder belongs to this user, and close the folder to every other user.

    Raises:
        PermissionError: The path is a link, no folder, or another user's folder.
    """
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode):
        raise PermissionError(f"{path} is not a folder")
    _check_owner(path, status)
    if status.st_mode & _OTHERS:
        path.chmod(0o700)


def try_lock(path: Path) -> int | None:
    """Lock a file and return the descriptor; None if another process holds the lock.

    None also if the file does not exist any more. Forked children give the lock up, so that a child
    that outlives its parent does not make the parent look alive.

    Raises:
        PermissionError: The file is a link, another user's, or open to other users.
    """
    try:
        # Not the mapping's descriptor: a forked child would keep that descriptor, and the lock.
        lock = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise PermissionError(f"{path} cannot be opened: {error.strerror}") from error
    try:
        is_locked = _lock_private_file(path, lock)
    except PermissionError:
        os.close(lock)
        raise
    if not is_locked:
        os.close(lock)
        return None
    _locks.add(lock)
    return lock


def unlock(lock: int) -> None:
    """Give up a lock."""
    if lock in _locks:
        _locks.remove(lock)
        os.close(lock)


def _lock_private_file(path: Path, file: int) -> bool:
    status = os.fstat(file)
    if not stat.S_ISREG(status.st_mode):
        raise PermissionError(f"{path} is not a file")
    _check_owner(path, status)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(status, path.lstat()):
            return False
    except OSError:  # another process holds the lock, or removed the file in between
        return False
    if status.st_mode & _OTHERS:
        raise PermissionError(
            f"{path} has the mode {status.st_mode & 0o777:o}, not 600:"
            " an earlier version of trialbus or another user created it"
        )
    return True


def _check_owner(path: Path, status: os.stat_result) -> None:
    if status.st_uid != os.geteuid():
        raise PermissionError(f"{path} belongs to the user with id {status.st_uid}")


_locks: set[int] = set()


def _unlock_in_child() -> None:
    for lock in list(_locks):
        unlock(lock)


os.register_at_fork(after_in_child=_unlock_in_child)
