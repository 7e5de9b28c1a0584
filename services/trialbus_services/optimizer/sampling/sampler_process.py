"""The sampler process of a study: answers requests for suggestions in order."""

from __future__ import annotations

import contextlib
import signal
import time
import traceback
from multiprocessing.connection import Connection

import optuna
from optuna.trial import TrialState

from trialbus_services.optimizer.registry import is_enumerating
from trialbus_services.optimizer.sampling.checked_sampler import SamplerFaultError
from trialbus_services.optimizer.sampling.messages import (
    Answer,
    Exhausted,
    Failed,
    ParamRequest,
    ParamUse,
    Request,
    Start,
    Tell,
    WaitingTrial,
)
from trialbus_services.optimizer.sampling.study_copy import StudyCopy

_TRACEBACK_ENTRIES = 3


def serve(connection: Connection) -> None:
    """Answer the optimizer until the optimizer closes the pipe, or the sampler fails.

    Args:
        connection: The pipe to the optimizer; a killed optimizer has closed the pipe, too.
    """
    # Ctrl-C reaches all processes of a terminal; only the optimizer ends this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        _answer(connection)
    except Exception as error:  # noqa: BLE001 - a sampler may fail for any reason
        with contextlib.suppress(OSError):  # the optimizer has ended, which may be the reason
            connection.send(Failed(_format_error(error)))


def _answer(connection: Connection) -> None:
    start: Start = connection.recv()
    study_copy = StudyCopy(start)
    # A point that is suggested ahead of need and never taken would not be tried.
    ahead = 0 if is_enumerating(start.spec.sampler) else start.ahead
    n_left = start.spec.n_trials - sum(t.state is not TrialState.WAITING for t in start.trials)
    n_requested = n_suggested = n_enqueued = 0
    was_exhausted = False
    while True:
        for skipped in study_copy.skip_waiting_trials():
            connection.send(skipped)
        is_exhausted = study_copy.is_exhausted
        if is_exhausted and not was_exhausted:
            connection.send(Exhausted(n_enqueued))
        was_exhausted = is_exhausted
        n_due = max(n_requested, min(n_requested + ahead, n_left))
        # Without suggestions ahead of need, messages are handled strictly in order, as in plain
        # Optuna. With them, results that have arrived come first and improve the suggestions.
        if n_suggested < n_due and not is_exhausted and (ahead == 0 or not connection.poll()):
            begin = time.perf_counter()
            suggestion = study_copy.ask()
            connection.send(Answer(suggestion, time.perf_counter() - begin))
            n_suggested += 1
            continue
        match connection.recv():
            case Request():
                n_requested += 1
            case Tell() as message:
                study_copy.tell(message)
            case ParamRequest() as message:
                connection.send(study_copy.suggest_param(message))
            case ParamUse() as message:
                study_copy.use_param(message)
            case WaitingTrial(trial):
                n_enqueued += 1
                was_exhausted = False
                study_copy.add_trial(trial)
            case unknown:
                raise TypeError(f"a sampler process does not know the message {unknown!r}")


def _format_error(error: Exception) -> str:
    if isinstance(error, SamplerFaultError) and error.__cause__ is None:
        return str(error)
    cause = error.__cause__ if isinstance(error, SamplerFaultError) else error
    entries = traceback.format_tb(cause.__traceback__ if cause else None)[-_TRACEBACK_ENTRIES:]
    if isinstance(error, SamplerFaultError):
        return f"{error}\n{''.join(entries)}".rstrip()
    return f"{type(error).__name__}: {error}\n{''.join(entries)}".rstrip()
