"""The sampler process of a study: answers requests for suggestions in order."""

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

# These samplers stop a study when every point runs or was tried, and count a suggestion that is not
# taken yet as tried.
_ENUMERATING = ("BruteForceSampler", "GridSampler")
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
    ahead = 0 if _is_enumerating(start.spec.sampler) else start.ahead
    n_left = start.spec.n_trials - sum(t.state is not TrialState.WAITING for t in start.trials)
    n_requested = n_suggested = 0
    while True:
        n_due = max(n_requested, min(n_requested + ahead, n_left))
        # Without suggestions ahead of need, messages are handled strictly in order, as in plain
        # Optuna. With them, results that have arrived come first and improve the suggestions.
        if (
            n_suggested < n_due
            and not study_copy.is_stopped
            and (ahead == 0 or not connection.poll())
        ):
            begin = time.perf_counter()
            suggestion = study_copy.ask()
            connection.send(Answer(suggestion, time.perf_counter() - begin))
            n_suggested += 1
            continue
        match connection.recv():
            case Request():
                n_requested += 1
            case Tell() as message:
                was_stopped = study_copy.is_stopped
                study_copy.tell(message)
                if study_copy.is_stopped and not was_stopped:
                    connection.send(Exhausted())
            case WaitingTrial(trial):
                study_copy.add_trial(trial)
            case unknown:
                raise TypeError(f"a sampler process does not know the message {unknown!r}")


def _is_enumerating(sampler: Component) -> bool:
    return sampler.type in _ENUMERATING or any(
        is_mapping(value) and value.get("type") in _ENUMERATING for value in sampler.args.values()
    )


def _format_error(error: Exception) -> str:
    entries = traceback.format_tb(error.__traceback__)[-_TRACEBACK_ENTRIES:]
    return f"{type(error).__name__}: {error}\n{''.join(entries)}".rstrip()
