"""StorageFile: the file of a storage, in which a removal or a replacement is noticed."""

from __future__ import annotations

from pathlib import Path

from optuna.storages import BaseStorage, RDBStorage


class StorageFile:
    """The file that a storage had when it was opened.

    SQLite goes on writing into a file that was removed, without an error, and everything that is
    written is lost.

    Args:
        backend: The storage; only a SQLite database has a file here.
    """

    def __init__(self, backend: BaseStorage) -> None:
        storage = getattr(backend, "_backend", backend)
        self._path = _find_path(storage) if isinstance(storage, RDBStorage) else None
        self._identity = self._identify()

    def find_loss(self) -> str | None:
        """Return what happened to the file; None while it is the file that was opened."""
        if self._path is None or self._identify() == self._identity:
            return None
        verb = "replaced" if self._path.exists() else "removed"
        return (
            f"the database file {str(self._path)!r} was {verb} while the study ran, with what was "
            "recorded in it; the log of the hub has every event"
        )

    def _identify(self) -> tuple[int, int] | None:
        if self._path is None:
            return None
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_dev, status.st_ino


def _find_path(storage: RDBStorage) -> Path | None:
    url = storage.engine.url
    if url.get_backend_name() != "sqlite" or not url.database or url.query:
        return None
    path = Path(url.database).absolute()
    return path if path.is_file() else None
