"""Storages to test with: databases of their own, and servers that end with the session."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path

import sqlalchemy
from optuna.storages import BaseStorage, InMemoryStorage, RDBStorage

from support.requirements import lacking
from support.until import until
from trialbus_services.optimizer.storage import open_storage

SQL = ["sqlite", "postgresql", "mysql"]
ALL = [*SQL, "journal", "memory"]


class Databases:
    """Makes empty storages of one kind; each can be opened more than once by its URL.

    Args:
        kind: One of `ALL`.
        directory: For files.
        server: The URL of a running server without a database's name, if the kind has one.
    """

    def __init__(self, kind: str, directory: Path, server: str | None) -> None:
        self.kind = kind
        self._directory = directory
        self._server = server
        self._opened: list[BaseStorage] = []

    def new(self) -> str:
        """Make an empty database and return its URL."""
        name = f"t{uuid.uuid4().hex}"
        if self._server is None:
            return {
                "sqlite": f"sqlite:///{self._directory / name}.db",
                "journal": f"journal:///{self._directory / name}.log",
                "memory": "memory://",
            }[self.kind]
        engine = sqlalchemy.create_engine(self._server, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name}")
        engine.dispose()
        return str(
            sqlalchemy.make_url(self._server)
            .set(database=name)
            .render_as_string(hide_password=False)
        )

    def open(self, url: str) -> BaseStorage:
        """Open a storage; it is closed with the test."""
        storage = open_storage(url)
        self._opened.append(storage)
        return storage

    def close(self) -> None:
        """Close what was opened."""
        for storage in self._opened:
            rdb = getattr(storage, "_backend", storage)
            if isinstance(rdb, RDBStorage):
                rdb.remove_session()
                rdb.engine.dispose()


def reopened(databases: Databases, url: str, storage: BaseStorage) -> BaseStorage:
    """Return what another process would see; memory has no other."""
    return storage if isinstance(storage, InMemoryStorage) else databases.open(url)


def _program(name: str) -> str:
    debian = sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")))
    found = shutil.which(name, path=":".join([os.environ["PATH"], "/usr/sbin", *debian]))
    if found is None:
        lacking(f"{name} is not installed")
    return found


def _unprivileged() -> list[str]:
    # PostgreSQL refuses to run as root.
    return (
        [_program("setpriv"), "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
        if os.geteuid() == 0
        else []
    )


@contextmanager
def _postgresql(directory: Path) -> Generator[str]:
    driver = next((name for name in ("psycopg", "psycopg2") if find_spec(name)), None)
    if driver is None:
        lacking("neither psycopg nor psycopg2 is installed")
    initdb, pg_ctl = _program("initdb"), _program("pg_ctl")
    user = _unprivileged()
    if user:
        shutil.chown(directory, "nobody", "nogroup")
    data = directory / "data"
    command = [initdb, "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"]
    subprocess.run([*user, *command], check=True, cwd=directory, capture_output=True)
    options = f"-k {directory} -c listen_addresses='' -c fsync=off"
    log = directory / "log"
    control = [*user, pg_ctl, "-D", data, "-w", "-l", log]
    subprocess.run(
        [*control, "-o", options, "start"], check=True, cwd=directory, stdout=subprocess.DEVNULL
    )
    try:
        yield f"postgresql+{driver}://postgres@/postgres?host={directory}"
    finally:
        subprocess.run(
            [*control, "-m", "immediate", "stop"],
            check=True,
            cwd=directory,
            stdout=subprocess.DEVNULL,
        )


@contextmanager
def _mysql(directory: Path) -> Generator[str]:
    if not find_spec("pymysql"):
        lacking("pymysql is not installed")
    server, install = _program("mariadbd"), _program("mariadb-install-db")
    user = ["--user=root"] if os.geteuid() == 0 else []
    data, socket = directory / "data", directory / "socket"
    subprocess.run(
        [
            install,
            "--no-defaults",
            f"--datadir={data}",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
            *user,
        ],
        check=True,
        capture_output=True,
    )
    process = subprocess.Popen(
        [
            server,
            "--no-defaults",
            f"--datadir={data}",
            f"--socket={socket}",
            f"--pid-file={directory / 'pid'}",
            "--skip-networking",
            "--innodb-flush-log-at-trx-commit=0",
            "--innodb-buffer-pool-size=32M",
            *user,
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until(socket.exists, 30, "MariaDB's socket")
        yield f"mysql+pymysql://root@localhost/mysql?unix_socket={socket}"
    finally:
        process.kill()
        process.wait()


#: Starts the server of a kind and gives its URL; None for kinds that are files.
Server = Callable[[str], str | None]


@contextmanager
def servers() -> Generator[Server]:
    """Start servers when they are first asked for, and end them together."""
    running: dict[str, str] = {}
    with ExitStack() as stack:

        def url(kind: str) -> str | None:
            start = {"postgresql": _postgresql, "mysql": _mysql}.get(kind)
            if start is not None and kind not in running:
                # Not tmp_path: the path of a socket file has to be short.
                directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="trialbus-"))
                running[kind] = stack.enter_context(start(Path(directory)))
            return running.get(kind)

        yield url
