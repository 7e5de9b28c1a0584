"""LogFiles: the files of an open log, locked for one process, and whether they are in place.

A log that is written again, from what is intact or from what an open hub has, takes the place of
the former files in steps. A finished new log waits as `events.replacement`, so that a process which
is killed between two steps leaves the rest to the next process that opens the log.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from types import TracebackType

from trialbus.errors import LogInUseError
from trialbus.hub.wal import name_wal
from trialbus.protocol.private_folder import make_private_folder, open_private_file

_LOCK, _MARK, _REPLACEMENT = ".lock", ".end", ".replacement"


class LogFiles:
    """The files of a log, locked for this process until `close`.

    The lock file and the database are both locked, so that neither can be deleted to let a second
    process in.

    Args:
        path: File of the database.

    Raises:
        LogInUseError: Another process has the log open.
        OSError: The lock file cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._identities: dict[Path, tuple[int, int]] = {}
        self._lock = open_private_file(path.with_suffix(_LOCK), os.O_RDWR)
        self._database: int | None = None
        try:
            self._take(self._lock)
            self._lock_database()
            with contextlib.suppress(OSError):  # on a full disk, the lock counts all the same
                os.ftruncate(self._lock, 0)
                os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> LogFiles:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the log; the database has to be closed before."""
        if self._database is not None:
            os.close(self._database)
            self._database = None
        os.close(self._lock)

    def watch(self) -> None:
        """Lock the database as it is now, and remember which files the log consists of.

        Raises:
            LogInUseError: Another process has the database open.
        """
        self._lock_database()
        paths = (self._path, name_wal(self._path), *map(self._path.with_suffix, (_LOCK, _MARK)))
        self._identities = {path: id_ for path in paths if (id_ := _identify(path)) is not None}

    def find_changed(self) -> Path | None:
        """Return a file that was deleted or replaced since `watch`, the database first; or None."""
        for path, identity in self._identities.items():
            if _identify(path) != identity:
                return path
        return None

    def _lock_database(self) -> None:
        """Lock the database, if there is one.

        Closing a descriptor of the file takes away the locks of SQLite in this process. So the file
        is only opened under the other lock, and closed when SQLite has not opened the file.
        """
        former, self._database = self._database, None
        if former is not None:
            if _identify(self._path) == _get_identity(os.fstat(former)):
                self._database = former
                return
            os.close(former)
        if self._path.exists():
            self._database = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
            self._take(self._database)

    def _take(self, descriptor: int) -> None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            owner = os.pread(self._lock, 100, 0).decode(errors="replace").strip() or "unknown"
            raise LogInUseError(str(self._path), owner) from None


def make_folder_beside(path: Path, name: str) -> Path:
    """Make a folder beside a file, named after what is in it and the time, and return the folder.

    Raises:
        OSError: The folder cannot be made.
    """
    stem = f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    for i in range(1000):
        folder = path.with_name(f"{stem}-{i}" if i else stem)
        if not folder.exists():
            folder.mkdir(mode=0o700)
            return folder
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), stem)


def write_again(db: sqlite3.Connection, path: Path) -> Path:
    """Write a whole open log into a new file and return the file.

    The file is the one at the path, unless another file is there.

    Raises:
        OSError, sqlite3.Error: The file cannot be written.
    """
    make_private_folder(path.parent)
    copy = path.with_suffix(".rescued")
    copy.unlink(missing_ok=True)
    os.close(open_private_file(copy))
    with closing(sqlite3.connect(copy)) as target:
        db.backup(target)
    if path.exists():
        return copy.replace(make_folder_beside(path, "rescued") / path.name)
    replace_log(path, copy)
    return path


def replace_log(path: Path, new: Path) -> Path | None:
    """Put a new log, which is complete and on disk, in the place of a log that no process has open.

    Returns:
        The folder into which the former files were moved; None if there were none.

    Raises:
        OSError: A file cannot be moved; the next call of `finish_replacement` goes on.
    """
    new.replace(locate_replacement(path))
    _sync_folder(path.parent)
    return finish_replacement(path)


def locate_replacement(path: Path) -> Path:
    """Return the file of a new log that waits for the place of a log."""
    return path.with_suffix(_REPLACEMENT)


def finish_replacement(path: Path) -> Path | None:
    """Put the new log that waits, if one does, in the place of a log that no process has open.

    Returns:
        The folder into which the former files were moved; None if nothing was.

    Raises:
        OSError: A file cannot be moved.
    """
    replacement = locate_replacement(path)
    if not replacement.exists():
        return None
    # SQLite would read the former write-ahead log into the new database: it goes first.
    beside = [path.with_name(path.name + suffix) for suffix in ("-wal", "-shm")]
    folder: Path | None = None
    if path.exists():
        folder = make_folder_beside(path, "damaged")
        for file in (*beside, path):
            if file.exists():
                file.replace(folder / file.name)
    else:  # of a database that is gone
        for file in beside:
            file.unlink(missing_ok=True)
    replacement.replace(path)
    _sync_folder(path.parent)
    return folder


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _identify(path: Path) -> tuple[int, int] | None:
    """Return the device and the number of a file; None for a file that does not exist."""
    try:
        return _get_identity(path.stat())
    except OSError:
        return None


def _get_identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
