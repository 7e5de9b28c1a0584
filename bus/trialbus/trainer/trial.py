"""Trial: what a training script uses.

```python
with trialbus.attach(defaults={"lr": 1e-3}, budget=20) as trial:
    for epoch in range(trial.budget):
        ...
        trial.report(epoch, {"val/accuracy": accuracy})
```
"""

from __future__ import annotations

import operator
import os
import random
import socket
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, SupportsFloat

import msgspec

from trialbus.client.link import Link
from trialbus.client.presence import Presence
from trialbus.errors import SpecError, TrialPruned
from trialbus.messages import events
from trialbus.study.nested_config import Params, laid_over, leaves
from trialbus.trainer.artifacts import store
from trialbus.trainer.assignment import TRIAL_VARIABLE, TTL_S, Assignment, ask_for
from trialbus.trainer.channel import BusChannel, Channel, Listener, Printer, say
from trialbus.trainer.checkpoint import Checkpoints, directory_of
from trialbus.trainer.distributed import Ranks
from trialbus.trainer.metrics import flatten
from trialbus.trainer.termination import Termination

_TRACEBACK_LINES = 20
_MAX_STEP = 2**31 - 1


class Trial:
    """One trial of a study, from its parameters to its result. Made by `attach`.

    Use it as a context manager around the training: a normal end completes the trial,
    `TrialPruned` ends the `with` block quietly, Ctrl-C or SIGTERM hand the trial back to be run
    again, and any other exception marks the trial failed and goes on up.

    Attributes:
        study: Name of the study.
        number: Number of the trial in it, from 0.
        attempt: 0, or more if an earlier attempt at this trial was lost.
        params: Value of each parameter by name, read-only: `params["model.width"]`,
            `params["model"]["width"]`, `params.nested()`.
        seed: Seed for this trial.
        budget: Steps to train.
        evaluation: How to evaluate, as the study says: `.interval` and `.episodes`, None where it
            does not.
        config_name: Name of the configuration to begin with, where `study.base_config` is one.
        rank: Of this process in distributed training, else 0.
    """

    def __init__(
        self, assignment: Assignment, channel: Channel, budget: int | None, ranks: Ranks
    ) -> None:
        self.study = assignment.study
        self.number = assignment.trial
        self.attempt = assignment.attempt
        self.params = Params(assignment.params)
        self.evaluation = assignment.evaluation
        self.config_name = assignment.config_name
        self._config = leaves(assignment.config)
        self.seed = assignment.seed
        self._budget = budget if assignment.budget is None else assignment.budget
        self.rank = ranks.rank
        self._ranks = ranks
        self._channel = channel
        self._began = time.monotonic()
        self._prune: events.Prune | None = None
        self._finished = False
        self._termination = Termination()
        channel.publish(
            events.TrialStarted(
                study=self.study,
                trial=self.number,
                attempt=self.attempt,
                host=socket.gethostname(),
                pid=os.getpid(),
            )
        )

    def __enter__(self) -> Trial:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        if self._termination.noted:
            self._finish("preempted", error="told to end by SIGTERM")
        elif error is None or (isinstance(error, SystemExit) and not error.code):
            self.complete()
        elif isinstance(error, TrialPruned):
            self._finish("pruned")
        elif isinstance(error, KeyboardInterrupt):
            self._finish("preempted", error="interrupted from the keyboard")
        else:
            lines = "".join(traceback.format_exception(error)).splitlines()
            self._finish("failed", error="\n".join(lines[-_TRACEBACK_LINES:]))
        self._channel.close()
        self._termination.release()
        if _given.trial is self:
            _given.trial = None
        return isinstance(error, TrialPruned)

    @property
    def config(self) -> Params:
        """The trial's whole configuration, read-only: the params laid over what all trials share.

        What they share are the study's `base_config` and `trial_overrides`. It is read as `params`
        are; `config.nested()` is a nested dict.
        """
        return Params(laid_over(self._config, self.params))

    @cached_property
    def checkpoint(self) -> Checkpoints:
        """Where to save the training, for the next attempt to go on from.

        The folder is in `$TRIALBUS_CHECKPOINTS`, by default `.trialbus/checkpoints`.
        """
        number = self.number if self.study else self.seed  # one run by hand is not the next one's
        return Checkpoints(directory_of(self.study, number), fresh=self.attempt == 0)

    @property
    def budget(self) -> int:
        """Steps to train, as the study says, else as `attach` was told.

        Raises:
            SpecError: Neither says it.
        """
        if self._budget is None:
            raise SpecError(
                "study.budget",
                "neither the study nor attach(budget=...) says how many steps to train",
            )
        return self._budget

    def report(self, step: int, metrics: Mapping[str, Any], *, wait: float = 0.0) -> None:
        """Publish an evaluation; returns in microseconds, whether or not a hub is there.

        Args:
            step: Which evaluation this is: a non-negative epoch, update or episode.
            metrics: Numbers by name; nested mappings are flattened with `/`. NaN is allowed.
            wait: Seconds to wait at most for the decision about this very step, as Optuna's
                `report` and `should_prune` make it; if none comes, the training goes on. By
                default a prune is noticed at the first report after it arrived.

        Raises:
            TrialPruned: The trial was pruned. Let it leave the training.
            TypeError: A metric is not one number; names its key.
            ValueError: `step` is negative, or above 2**31 - 1.
            OutboxFullError: The hub has been away for so long that the outbox is full.

        Example:
            >>> trial.report(3, {"val": {"accuracy": 0.93, "loss": 0.2}})  # doctest: +SKIP
        """
        if not 0 <= step <= _MAX_STEP:
            raise ValueError(f"step is {step}, expected 0 to {_MAX_STEP}")
        self._channel.publish(
            events.EvaluationComplete(
                study=self.study,
                trial=self.number,
                attempt=self.attempt,
                step=operator.index(step),
                metrics=flatten(metrics),
                elapsed_s=time.monotonic() - self._began,
                answer=wait > 0,
            ),
            at_once=wait > 0,
        )
        if wait > 0 and self._prune is None:
            decided = self._channel.decided(self.attempt, step, wait)
            self._prune = self._ranks.share(decided)
        if self.should_prune():
            raise TrialPruned(f"trial {self.number} of {self.study!r} was pruned")

    def log_artifact(self, path: str | os.PathLike[str]) -> str:
        """Keep a copy of a file with the trial and return its id.

        It lies in `$TRIALBUS_ARTIFACTS`, by default `.trialbus/artifacts`, under that id, where
        `optuna.artifacts.FileSystemArtifactStore` and `optuna-dashboard --artifact-dir` find it.

        Args:
            path: The file.

        Raises:
            OSError: It is not a file that can be read, or the folder cannot be written.
        """
        event = store(Path(path), study=self.study, trial=self.number, attempt=self.attempt)
        self._channel.publish(event)
        return event.artifact

    def should_prune(self) -> bool:
        """Tell whether a prune command has arrived for this attempt.

        In distributed training every rank has to ask alike, by this or by `report`.
        """
        if self._prune is None:
            self._prune = self._ranks.share(self._channel.pruned(self.attempt))
        return self._prune is not None

    def complete(self, values: SupportsFloat | Sequence[SupportsFloat] | None = None) -> None:
        """End the trial now.

        Args:
            values: Its objective value, or values; without them its evaluations decide.

        Raises:
            TypeError: They are not numbers.
        """
        self._finish("complete", values=None if values is None else _numbers(values))

    def fill_in(self, defaults: Mapping[str, Any] | None = None, budget: int | None = None) -> None:
        """Take params and a budget for what the study does not say, as `attach` does."""
        self.params = Params(_filled(self.params, defaults, self._config))
        self._budget = budget if self._budget is None else self._budget

    def _finish(
        self,
        state: events.TrialState,
        *,
        values: list[float] | None = None,
        error: str | None = None,
    ) -> None:
        if not self._finished:
            self._finished = True
            self._channel.publish(
                events.TrialFinished(
                    study=self.study,
                    trial=self.number,
                    attempt=self.attempt,
                    state=state,
                    values=values,
                    error=error,
                )
            )


@dataclass
class _Given:
    """The worker's trial that this process runs, once it is attached."""

    trial: Trial | None = None
    text: str = ""
    pid: int = 0


_given = _Given()


def attach(
    study: str | None = None,
    *,
    defaults: Mapping[str, Any] | None = None,
    budget: int | None = None,
    endpoint: str | None = None,
    timeout_s: float | None = None,
) -> Trial:
    """Return the trial this process is to run.

    In distributed training (`torch.distributed`) every rank attaches, after
    `init_process_group()`, and all of them report alike: rank 0 speaks for the trial, and a prune
    reaches all ranks at the same report.

    In a process that a worker started, it is the worker's trial, the same one however often this
    is called (`defaults` and `budget` fill in what it lacks). Elsewhere, with `study`, the
    optimizer is asked for one. Without either it is a stand-alone trial: `defaults` are its
    parameters and its reports are printed, so that the same script runs by hand.

    Args:
        study: Ask for a trial of this study, unless a worker has given one.
        defaults: Parameters of a stand-alone trial, and of any the study does not search.
        budget: Steps to train where the study does not say.
        endpoint: Where the hub is; None takes `$TRIALBUS_ENDPOINT` or the default.
        timeout_s: Seconds to wait for a trial that was asked for; None waits for ever.

    Raises:
        SpecError: `$TRIALBUS_TRIAL` is malformed.
        TrialbusError: There are several ranks and no process group yet.
        HubUnavailableError: No hub within `timeout_s`.
        TrialbusError: No trial within `timeout_s`.

    Example:
        >>> with attach(defaults={"lr": 1e-3}, budget=20) as trial:  # doctest: +SKIP
        ...     trial.report(0, {"loss": train(trial.params["lr"])})
    """
    given = os.environ.get(TRIAL_VARIABLE)
    if _given.trial is not None and (_given.text, _given.pid) == (given, os.getpid()):
        _given.trial.fill_in(defaults, budget)
        return _given.trial
    ranks = Ranks()
    channel: Channel
    if ranks.rank:
        assignment, channel = Assignment(study="", trial=0, params={}), Listener()
    elif given:
        assignment, channel = _handed(given, defaults, endpoint)
    elif study is not None:
        link, presence, asked = ask_for(study, endpoint, timeout_s)
        assignment = _with_defaults(asked, defaults)
        channel = BusChannel(link, presence, assignment)
    else:
        assignment, channel = _alone(defaults), Printer()
    trial = Trial(ranks.share(assignment), channel, budget, ranks)
    if given:
        _given.trial, _given.text, _given.pid = trial, given, os.getpid()
    return trial


def _handed(
    text: str, defaults: Mapping[str, Any] | None, endpoint: str | None
) -> tuple[Assignment, Channel]:
    try:
        assignment = msgspec.json.decode(text, type=Assignment)
    except msgspec.DecodeError as error:
        raise SpecError(f"${TRIAL_VARIABLE}", f"{text!r} is not a trial: {error}") from None
    link = Link(endpoint)
    presence = Presence(
        link=link,
        kind="trainer",
        ttl_s=TTL_S,
        study=assignment.study,
        trial=assignment.trial,
        attempt=assignment.attempt,
        info={"host": socket.gethostname(), "pid": str(os.getpid())},
    )
    assignment = _with_defaults(assignment, defaults)
    return assignment, BusChannel(link, presence, assignment)


def _alone(defaults: Mapping[str, Any] | None) -> Assignment:
    say(
        f"stand-alone (no ${TRIAL_VARIABLE} and no study given): "
        "default params, reports are printed"
    )
    seed = random.SystemRandom().randrange(2**31)
    return Assignment(study="", trial=0, params=dict(defaults or {}), seed=seed)


def _numbers(values: SupportsFloat | Sequence[SupportsFloat]) -> list[float]:
    several = list(values) if isinstance(values, Sequence) else [values]
    try:
        if isinstance(values, str | bytes):
            raise TypeError  # noqa: TRY301 - float() would take some of them
        return [float(value) for value in several]
    except (TypeError, ValueError):
        raise TypeError(
            f"the objective is {values!r}, expected a number or a list of numbers"
        ) from None


def _with_defaults(assignment: Assignment, defaults: Mapping[str, Any] | None) -> Assignment:
    params = _filled(assignment.params, defaults, leaves(assignment.config))
    return msgspec.structs.replace(assignment, params=params)


def _filled(
    params: Mapping[str, Any], defaults: Mapping[str, Any] | None, config: Mapping[str, Any]
) -> dict[str, Any]:
    """Return params with defaults for those that the study does not search.

    What the study sets for all trials comes before a default of the same name.
    """
    given = {name: config.get(name, default) for name, default in (defaults or {}).items()}
    return {**given, **params}
