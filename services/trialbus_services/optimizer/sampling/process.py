"""The child process: takes what the optimizer says, suggests, and is ahead of it."""

from __future__ import annotations

import os
import queue
import signal
import threading
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection

import optuna

from trialbus_services.optimizer.sampling.messages import (
    Ask,
    Close,
    Enqueue,
    Exhausted,
    Failed,
    Tell,
    ToProcess,
)
from trialbus_services.optimizer.sampling.shadow import Shadow

_TRACEBACK_LINES = 12


def serve(
    connection: Connection,
    make: Callable[[], Shadow],
    ahead: int,
    limit: int,
) -> None:
    """Serve one study until the optimizer closes the connection, or dies.

    Args:
        connection: To the optimizer.
        make: Makes the study.
        ahead: Suggestions to have ready beyond those asked for.
        limit: Suggestions after which it does not go ahead any more.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the optimizer's to handle
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    inbox: queue.SimpleQueue[ToProcess] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(connection, inbox), daemon=True).start()
    try:
        _serve(connection, inbox, make(), ahead, limit)
    except BaseException as error:  # noqa: BLE001 - a sampler may fail in any way
        lines = traceback.format_exception(error)
        text = "".join(lines).strip().splitlines()[-_TRACEBACK_LINES:]
        connection.send(Failed("\n".join(text)))


def _serve(
    connection: Connection,
    inbox: queue.SimpleQueue[ToProcess],
    shadow: Shadow,
    ahead: int,
    limit: int,
) -> None:
    asked = given = 0
    exhausted = False
    while True:
        wanted = max(asked, min(asked + ahead, limit))
        # Everything that was said before is taken in before the next suggestion.
        if given < wanted and inbox.empty():
            connection.send(shadow.ask())
            given += 1
            continue
        match inbox.get():
            case Ask():
                asked += 1
            case Tell() as ended:
                shadow.tell(ended)
            case Enqueue(trial):
                shadow.enqueue(trial)
            case Close():
                return
        if shadow.exhausted and not exhausted:
            exhausted = True
            connection.send(Exhausted())


def _receive(connection: Connection, inbox: queue.SimpleQueue[ToProcess]) -> None:
    """Empty the connection at once, so that the optimizer never waits for a busy sampler."""
    while True:
        try:
            message = connection.recv()
        except (EOFError, OSError):
            os._exit(0)  # the optimizer is gone; a suggestion under way is for nobody
        inbox.put(message)
        if isinstance(message, Close):
            os._exit(0)
