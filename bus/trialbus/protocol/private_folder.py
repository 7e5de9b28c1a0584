"""Folders and files of a bus that only their user can enter and read, whatever the umask."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

_OTHERS = 0o077


def make_private_folder(path: Path) -> None:
    """Make a folder that only this user can enter, with the folders above it.

    An existing folder of this user is closed to other users, unless this process works in it.

    Raises:
        OSError: The folder cannot be made.
    """
    if not path.is_dir():
        # `Path.mkdir` gives its mode to the last folder only.
        if path.parent != path:
            _make_missing(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)
        return
    status = path.stat()
    is_open = status.st_mode & _OTHERS and status.st_uid == os.geteuid()
    if is_open and not Path.cwd().is_relative_to(path.resolve()):
        path.chmod(0o700)


def open_private_file(path: Path, flags: int = os.O_RDWR) -> int:
    """Open a file that only this user can read and write, make it if missing, return a descriptor.

    Args:
        path: The file; its folder exists.
        flags: Flags of `os.open`.

    Raises:
        OSError: The file cannot be opened.
    """
    descriptor = os.open(path, flags | os.O_CREAT | os.O_CLOEXEC, 0o600)
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode) and status.st_mode & _OTHERS and _is_own(status):
        os.fchmod(descriptor, 0o600)  # of an earlier version
    return descriptor


def open_private_log(path: Path) -> BinaryIO:
    """Open a log to append to, in a folder of its own, both open to this user only.

    Raises:
        OSError: The folder or the file cannot be made or written.
    """
    make_private_folder(path.parent)
    return os.fdopen(open_private_file(path, os.O_WRONLY | os.O_APPEND), "ab")


def _make_missing(folder: Path) -> None:
    if not folder.is_dir():
        _make_missing(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)


def _is_own(status: os.stat_result) -> bool:
    return status.st_uid == os.geteuid()
