"""Storages for tests: a database for each test, and servers for the session."""

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

from support.requirements import skip_for_lack
from support.until import until
from trialbus_services.optimizer.storage import open_storage

SQL = ["sqlite", "postgresql", "mysql"]
ALL = [*SQL, "journal", "memory"]


class Databases:
    """Factory of empty storages of a kind, which a test opens any number of times by URL.

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
        """Create an empty database and return the URL."""
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
        """Open a storage until the end of the test."""
        storage = open_storage(url)
        self._opened.append(storage)
        return storage

    def close(self) -> None:
        """Close the opened storages."""
        for storage in self._opened:
            rdb = getattr(storage, "_backend", storage)
            if isinstance(rdb, RDBStorage):
                rdb.remove_session()
                rdb.engine.dispose()


def reopen(databases: Databases, url: str, storage: BaseStorage) -> BaseStorage:
    """Return a storage as another process opens it; a storage in memory is returned as it is."""
    return storage if isinstance(storage, InMemoryStorage) else databases.open(url)


def _find_program(name: str) -> str:
    debian = sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")))
    path = shutil.which(name, path=":".join([os.environ["PATH"], "/usr/sbin", *debian]))
    if path is None:
        skip_for_lack(f"{name} is not installed")
    return path


def _make_unprivileged() -> list[str]:
    # PostgreSQL refuses to run as root.
    return (
        [_find_program("setpriv"), "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
        if os.geteuid() == 0
        else []
    )


@contextmanager
def _start_postgresql(directory: Path) -> Generator[str]:
    driver = next((name for name in ("psycopg", "psycopg2") if find_spec(name)), None)
    if driver is None:
        skip_for_lack("neither psycopg nor psycopg2 is installed")
    initdb, pg_ctl = _find_program("initdb"), _find_program("pg_ctl")
    user = _make_unprivileged()
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
def _start_mysql(directory: Path) -> Generator[str]:
    if not find_spec("pymysql"):
        skip_for_lack("pymysql is not installed")
    server, install = _find_program("mariadbd"), _find_program("mariadb-install-db")
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


#: Function that starts the server of a kind and returns its URL; None for kinds that are files.
Server = Callable[[str], str | None]


@contextmanager
def start_servers() -> Generator[Server]:
    """Yield a function that starts a server on first use, and stop all servers at the end."""
    running: dict[str, str] = {}
    with ExitStack() as stack:

        def url(kind: str) -> str | None:
            start = {"postgresql": _start_postgresql, "mysql": _start_mysql}.get(kind)
            if start is not None and kind not in running:
                # Not tmp_path: the path of a socket file has to be short.
                directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="trialbus-"))
                running[kind] = stack.enter_context(start(Path(directory)))
            return running.get(kind)

        yield url
