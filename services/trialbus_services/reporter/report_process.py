"""Make a report in a child process, so that a faulty report cannot harm the service.

The process runs users' figures, and a browser for pictures: it may crash, hang, or take gigabytes.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.forkserver
import os
import signal
import threading
import time
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from trialbus.errors import TrialbusError
from trialbus_services.config.report_settings import ReportSettings
from trialbus_services.process import exit_codes
from trialbus_services.process.error_text import describe_error

# The fork server has all that reports use loaded, so that a report is ready in a fraction of the
# seconds that importances (scikit-learn) take to import; the service itself needs nothing of it.
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    ["trialbus_services.reporter.staging", "optuna.importance", "alembic.command", "sqlalchemy.orm"]
)
_TURN_S = 0.2
_LONGEST_S = 900.0


class ReportError(TrialbusError):
    """A report could not be made; the text says why."""


@dataclass(frozen=True)
class _Failure:
    reason: str
    trace: str


def prepare() -> None:
    """Start the server that such processes are forked from, which takes a second or two."""
    multiprocessing.forkserver.ensure_running()


def make_report_in_process(
    study: str, storage_url: str, directory: Path, options: ReportSettings, *, stop: threading.Event
) -> list[Path] | None:
    """Make the report of a study in a child process and return the paths; None if `stop` was set.

    Args:
        study: Name of the study.
        storage_url: Storage of the study.
        directory: Folder in which the study's folder is made.
        options: What to write.
        stop: Ends the process and leaves no report, or the one before.

    Raises:
        ReportError: The report could not be made, or took longer than a quarter of an hour.
    """
    connection, child_connection = _CONTEXT.Pipe()
    process = _CONTEXT.Process(
        target=_make,
        args=(child_connection, study, storage_url, directory, options),
        name=f"report {study}",
    )
    process.start()
    child_connection.close()
    deadline = time.monotonic() + _LONGEST_S
    try:
        while not connection.poll(_TURN_S):
            if stop.is_set():
                return None
            if time.monotonic() > deadline:
                raise ReportError(f"the report took longer than {_LONGEST_S:g} s")
        answer: list[Path] | _Failure = connection.recv()
    except (EOFError, ConnectionError):
        process.join()
        end = exit_codes.describe_code(process.exitcode or 0)
        raise ReportError(f"the process that made it {end}") from None
    finally:
        process.kill()
        process.join()
        connection.close()
    if isinstance(answer, _Failure):
        raise ReportError(answer.reason) from RuntimeError(answer.trace)
    return answer


def _make(
    connection: Connection, study: str, storage_url: str, directory: Path, options: ReportSettings
) -> None:
    # Ctrl-C reaches all processes of a terminal; the service says when this one is to end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    import optuna

    from trialbus_services.reporter import staging
    from trialbus_services.reporter.storage_reader import load_study, open_storage

    threading.Thread(target=_end_with_service, args=(connection,), daemon=True).start()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    answer: list[Path] | _Failure
    try:
        loaded = load_study(study, open_storage(storage_url), storage_url)
        answer = staging.make_report(loaded, directory, options)
    except Exception as error:  # noqa: BLE001 - figures and storages may fail in any way
        answer = _Failure(describe_error(error), traceback.format_exc())
    connection.send(answer)


def _end_with_service(connection: Connection) -> None:
    """End this process when the service has ended; the next service makes the report again."""
    with contextlib.suppress(EOFError, OSError):
        connection.recv()
    os._exit(exit_codes.FAILED)
