"""A PostgreSQL server for one run, where its programs and a driver are installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path


@contextmanager
def start_postgresql() -> Generator[str]:
    """Yield the URL of a database with fsync, PostgreSQL's default, or why no server starts."""
    programs = [shutil.which(name) for name in ("initdb", "pg_ctl")]
    if None in programs or find_spec("psycopg") is None:
        yield "PostgreSQL's initdb and pg_ctl, or the Python package psycopg, are not installed"
        return
    initdb, pg_ctl = map(str, programs)
    # PostgreSQL refuses to run as root.
    user = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
    user = user if os.geteuid() == 0 else []
    with tempfile.TemporaryDirectory(prefix="trialbus-") as folder:
        if user:
            shutil.chown(folder, "nobody", "nogroup")
        data = str(Path(folder) / "data")
        create = [initdb, "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8"]
        subprocess.run([*user, *create], check=True, cwd=folder, capture_output=True)
        control = [*user, pg_ctl, "-D", data, "-w", "-l", f"{folder}/server.log"]
        options = ["-o", f"-k {folder} -c listen_addresses=''", "start"]
        quiet = subprocess.DEVNULL
        subprocess.run([*control, *options], check=True, cwd=folder, stdout=quiet)
        try:
            yield f"postgresql+psycopg://postgres@/postgres?host={folder}"
        finally:
            stop = [*control, "-m", "immediate", "stop"]
            subprocess.run(stop, check=True, cwd=folder, stdout=quiet)
