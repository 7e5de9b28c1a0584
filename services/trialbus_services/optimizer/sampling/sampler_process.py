"""The process that samples for one study, from its first message to its last."""

from __future__ import annotations

import contextlib
import signal
import time
import traceback
from multiprocessing.connection import Connection

import optuna
from optuna.trial import TrialState

from trialbus.study.spec import Component
from trialbus.study.validation import is_mapping
from trialbus_services.optimizer.sampling.messages import (
    Answer,
    Exhausted,
    Failed,
    Request,
    Start,
    Tell,
    WaitingTrial,
)
from trialbus_services.optimizer.sampling.study_copy import StudyCopy

# They stop a study when every point of theirs is running or was tried, so a suggestion that is not
# taken yet is, to them, about to be tried.
_ENUMERATING = ("BruteForceSampler", "GridSampler")
_TRACEBACK_ENTRIES = 3


def serve(connection: Connection) -> None:
    """Answer the optimizer until its end of the pipe is closed, or the sampler fails.

    Args:
        connection: The pipe. A process that was killed has closed its end, too.
    """
    # Ctrl-C reaches all processes of a terminal; the optimizer says when this one is to end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        _answer(connection)
    except Exception as error:  # noqa: BLE001 - any sampler may fail in any way
        with contextlib.suppress(OSError):  # the other end is closed, which may be the reason
            connection.send(Failed(_format_error(error)))


def _answer(connection: Connection) -> None:
    start: Start = connection.recv()
    study_copy = StudyCopy(start)
    ahead = 0 if _is_enumerating(start.spec.sampler) else start.ahead
    room = start.spec.n_trials - sum(t.state is not TrialState.WAITING for t in start.trials)
    requested = asked = 0
    while True:
        wanted = max(requested, min(requested + ahead, room))
        # Without suggestions ahead of need the order of messages is kept to, as a study that is
        # sampled in one place does. With them, news comes first and makes for better ones.
        if asked < wanted and not study_copy.stopped and (ahead == 0 or not connection.poll()):
            begin = time.perf_counter()
            suggestion = study_copy.ask()
            connection.send(Answer(suggestion, time.perf_counter() - begin))
            asked += 1
            continue
        match connection.recv():
            case Request():
                requested += 1
            case Tell() as message:
                stopped = study_copy.stopped
                study_copy.tell(message)
                if study_copy.stopped and not stopped:
                    connection.send(Exhausted())
            case WaitingTrial(trial):
                study_copy.add(trial)
            case unknown:
                raise TypeError(f"a sampler process cannot take {unknown!r}")


def _is_enumerating(sampler: Component) -> bool:
    return sampler.type in _ENUMERATING or any(
        is_mapping(value) and value.get("type") in _ENUMERATING for value in sampler.args.values()
    )


def _format_error(error: Exception) -> str:
    entries = traceback.format_tb(error.__traceback__)[-_TRACEBACK_ENTRIES:]
    return f"{type(error).__name__}: {error}\n{''.join(entries)}".rstrip()
