"""The optimizer's handle of one study's sampler process."""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.forkserver
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from trialbus.spec import StudySpec
from trialbus_services.optimizer.sampling.messages import (
    Ask,
    Close,
    Enqueue,
    Exhausted,
    Failed,
    FromProcess,
    Suggestion,
    Tell,
    ToProcess,
)
from trialbus_services.optimizer.sampling.process import serve
from trialbus_services.optimizer.sampling.shadow import Shadow, shadow_of

# A server that has Optuna imported forks a process in milliseconds, and its memory is shared.
# Forking the optimizer itself would copy its threads' locks.
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload([serve.__module__])
#: Those whose suggestions depend on what was suggested before as a whole grid does: looking ahead
#: would hand out its last points twice.
_NEVER_AHEAD = ("GridSampler", "BruteForceSampler")


def warm_up() -> None:
    """Start the server that forks samplers; returns at once."""
    multiprocessing.forkserver.ensure_running()


class Suggester:
    """The sampler of one study, in a process of its own.

    No method waits for the sampler. A thread takes what it suggests and calls `on_ready`.

    Args:
        spec: The study.
        trials: What it has already, in the order of their numbers.
        study_attrs: Its system attributes.
        ahead: Suggestions to have ready before they are asked for. 0 gives the sequence that plain
            Optuna would, for a seed; more answers at once, from what was known a little earlier.
        limit: Trials that the study may still hand out; it does not go ahead beyond them.
        on_ready: Called, from another thread, when there is something new.
    """

    def __init__(
        self,
        spec: StudySpec,
        trials: Sequence[FrozenTrial],
        study_attrs: Mapping[str, Any],
        *,
        ahead: int,
        limit: int,
        on_ready: Callable[[], None],
    ) -> None:
        single = len(spec.objectives) == 1
        shadows = [shadow_of(trial, single=single) for trial in trials]
        self._connection, theirs = _CONTEXT.Pipe()
        self._on_ready = on_ready
        self._ready: deque[Suggestion] = deque()
        self._shadow_numbers: dict[int, int] = {}
        self._ended = False
        self.exhausted = False  #: the sampler has nothing left to suggest
        self.error: str | None = None  #: why it failed, if it did
        if spec.sampler.type in _NEVER_AHEAD:
            ahead = 0
        self._process = _CONTEXT.Process(
            target=serve,
            args=(theirs, partial(Shadow, spec, shadows, dict(study_attrs)), ahead, limit),
            name=f"sampler of {spec.name}",
            daemon=True,
        )
        self._process.start()
        theirs.close()
        threading.Thread(target=self._receive, name="sampler", daemon=True).start()

    @property
    def alive(self) -> bool:
        """Whether its process runs, or has said why not."""
        return not self._ended or self.error is not None

    @property
    def pid(self) -> int:
        """Id of its process."""
        assert self._process.pid is not None
        return self._process.pid

    def request(self) -> None:
        """Ask for one suggestion more."""
        self._send(Ask())

    def take(self) -> Suggestion | None:
        """Return the next suggestion, in the order of asking, or None if none is ready."""
        return self._ready.popleft() if self._ready else None

    def claim(self, suggestion: Suggestion, number: int) -> None:
        """Note which number the real trial of a suggestion has."""
        if number != suggestion.number:
            self._shadow_numbers[number] = suggestion.number

    def tell(
        self,
        number: int,
        state: TrialState,
        values: Sequence[float] | None,
        last: tuple[int, float] | None,
        constraints: Mapping[str, float] | None = None,
    ) -> None:
        """Tell how a real trial ended.

        Args:
            number: Of the real trial.
            state: How it ended.
            values: Its objective values, if it is complete.
            last: Its last step and intermediate value; looked at if it was pruned.
            constraints: Value by name, feasible if at most 0.
        """
        number = self._shadow_numbers.pop(number, number)
        given = list(values) if values is not None else None
        self._send(Tell(number, state, given, last, dict(constraints or {})))

    def enqueue(self, trial: FrozenTrial) -> None:
        """Tell that a trial waits in the real study."""
        self._send(Enqueue(trial))

    def close(self) -> None:
        """End the process."""
        self._send(Close())

    def _send(self, message: ToProcess) -> None:
        with contextlib.suppress(OSError):  # it is gone, as `alive` says
            self._connection.send(message)

    def _receive(self) -> None:
        while True:
            try:
                message: FromProcess = self._connection.recv()
            except (EOFError, OSError):
                break
            match message:
                case Suggestion():
                    self._ready.append(message)
                case Exhausted():
                    self.exhausted = True
                case Failed(error):
                    self.error = error
            self._on_ready()
        self._ended = True
        self._connection.close()
        self._process.join()
        self._on_ready()
