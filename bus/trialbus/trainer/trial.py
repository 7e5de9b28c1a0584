"""Trial: the handle through which a training script runs one trial.

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
from trialbus.study.nested_config import Params, flatten_config, merge_configs
from trialbus.trainer.artifacts import store_artifact
from trialbus.trainer.assignment import (
    TRIAL_VARIABLE,
    TTL_S,
    parse_assignment,
    request_trial,
)
from trialbus.trainer.channel import (
    BusChannel,
    Channel,
    PrintingChannel,
    SilentChannel,
    print_line,
)
from trialbus.trainer.checkpoint import Checkpoints, locate_checkpoints
from trialbus.trainer.distributed import Ranks
from trialbus.trainer.metrics import flatten_metrics
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
        prune_command: The prune command that `report` or `should_prune` found for this attempt: its
            `step`, `reason` and `by`; else None.
        rank: Rank of this process in distributed training, else 0.
    """

    def __init__(
        self, assigned: events.TrialAssigned, channel: Channel, budget: int | None, ranks: Ranks
    ) -> None:
        self.study = assigned.study
        self.number = assigned.trial
        self.attempt = assigned.attempt
        self.params = Params(assigned.params)
        self.evaluation = assigned.evaluation
        self.config_name = assigned.config_name
        self._config = flatten_config(assigned.config)
        self.seed = assigned.seed
        self._budget = budget if assigned.budget is None else assigned.budget
        self.rank = ranks.rank
        self._ranks = ranks
        self._channel = channel
        self._attached_mono_s = time.monotonic()
        self.prune_command: events.Prune | None = None
        self._is_finished = False
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
        if self._termination.is_requested:
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
        if _attached.trial is self:
            _attached.trial = None
        return isinstance(error, TrialPruned)

    @property
    def config(self) -> Params:
        """The trial's whole configuration, read-only: the params laid over what all trials share.

        What they share are the study's `base_config` and `trial_overrides`. It is read as `params`
        are; `config.nested()` is a nested dict.
        """
        return Params(merge_configs(self._config, self.params))

    @cached_property
    def checkpoint(self) -> Checkpoints:
        """The checkpoints of this trial, which its next attempt goes on from.

        The folder is in `$TRIALBUS_CHECKPOINTS`, by default `.trialbus/checkpoints`.
        """
        number = self.number if self.study else self.seed  # one run by hand is not the next one's
        return Checkpoints(locate_checkpoints(self.study, number), fresh=self.attempt == 0)

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
            TrialPruned: The trial was pruned; let the exception leave the training. Its attributes
                `step`, `reason` and `by` say why, and who asked for it.
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
                metrics=flatten_metrics(metrics),
                elapsed_s=time.monotonic() - self._attached_mono_s,
                answer=wait > 0,
            ),
            at_once=wait > 0,
        )
        if wait > 0 and self.prune_command is None:
            prune = self._channel.wait_for_decision(self.attempt, step, wait)
            self.prune_command = self._ranks.share(prune)
        if self.should_prune():
            raise self._make_pruned()

    def log_artifact(self, path: str | os.PathLike[str]) -> str:
        """Keep a copy of a file with the trial and return its id.

        It lies in `$TRIALBUS_ARTIFACTS`, by default `.trialbus/artifacts`, under that id, where
        `optuna.artifacts.FileSystemArtifactStore` and `optuna-dashboard --artifact-dir` find it.

        Args:
            path: The file.

        Raises:
            OSError: It is not a file that can be read, or the folder cannot be written.
        """
        event = store_artifact(
            Path(path), study=self.study, trial=self.number, attempt=self.attempt
        )
        self._channel.publish(event)
        return event.artifact

    def should_prune(self) -> bool:
        """Tell whether a prune command has arrived for this attempt; `prune_command` then holds it.

        In distributed training every rank has to ask alike, by this or by `report`.
        """
        if self.prune_command is None:
            self.prune_command = self._ranks.share(self._channel.find_prune(self.attempt))
        return self.prune_command is not None

    def complete(self, values: SupportsFloat | Sequence[SupportsFloat] | None = None) -> None:
        """Complete the trial now.

        Args:
            values: The trial's objective value, or values; None leaves them to its evaluations.

        Raises:
            TypeError: A value is not a number.
        """
        self._finish("complete", values=None if values is None else _convert_values(values))

    def set_defaults(
        self, defaults: Mapping[str, Any] | None = None, budget: int | None = None
    ) -> None:
        """Set params and a budget where the study leaves them open, as `attach` does."""
        self.params = Params(_add_defaults(self.params, defaults, self._config))
        self._budget = budget if self._budget is None else self._budget

    def _make_pruned(self) -> TrialPruned:
        prune = self.prune_command
        assert prune is not None
        by = f" by {prune.by}" if prune.by else ""
        reason = f": {prune.reason}" if prune.reason else ""
        return TrialPruned(
            f"trial {self.number} of {self.study!r} was pruned{by} at step {prune.step}{reason}",
            step=prune.step,
            reason=prune.reason,
            by=prune.by,
        )

    def _finish(
        self,
        state: events.TrialState,
        *,
        values: list[float] | None = None,
        error: str | None = None,
    ) -> None:
        if not self._is_finished:
            self._is_finished = True
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
class _Attached:
    """The worker's trial that this process runs, once it is attached."""

    trial: Trial | None = None
    text: str = ""
    pid: int = 0


_attached = _Attached()


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
    text = os.environ.get(TRIAL_VARIABLE)
    if _attached.trial is not None and (_attached.text, _attached.pid) == (text, os.getpid()):
        _attached.trial.set_defaults(defaults, budget)
        return _attached.trial
    ranks = Ranks()
    channel: Channel
    if ranks.rank:
        assigned, channel = events.TrialAssigned(trial=0, params={}), SilentChannel()
    elif text:
        assigned = parse_assignment(text)
        link, presence = _register(assigned, endpoint)
        channel = BusChannel(link, presence, assigned)
    elif study is not None:
        link, presence, assigned = request_trial(study, endpoint, timeout_s)
        channel = BusChannel(link, presence, assigned)
    else:
        assigned, channel = _make_stand_alone(), PrintingChannel()
    trial = Trial(ranks.share(_with_defaults(assigned, defaults)), channel, budget, ranks)
    if text:
        _attached.trial, _attached.text, _attached.pid = trial, text, os.getpid()
    return trial


def _register(assigned: events.TrialAssigned, endpoint: str | None) -> tuple[Link, Presence]:
    """Register this process with the hub as the trainer of a trial."""
    link = Link(endpoint)
    presence = Presence(
        link=link,
        kind="trainer",
        ttl_s=TTL_S,
        study=assigned.study,
        trial=assigned.trial,
        attempt=assigned.attempt,
        info={"host": socket.gethostname(), "pid": str(os.getpid())},
    )
    return link, presence


def _make_stand_alone() -> events.TrialAssigned:
    print_line(
        f"stand-alone (no ${TRIAL_VARIABLE} and no study given): "
        "default params, reports are printed"
    )
    seed = random.SystemRandom().randrange(2**31)
    return events.TrialAssigned(trial=0, params={}, seed=seed)


def _convert_values(values: SupportsFloat | Sequence[SupportsFloat]) -> list[float]:
    several = list(values) if isinstance(values, Sequence) else [values]
    try:
        if isinstance(values, str | bytes):
            raise TypeError  # noqa: TRY301 - float() would take some of them
        return [float(value) for value in several]
    except (TypeError, ValueError):
        raise TypeError(
            f"the objective is {values!r}, expected a number or a list of numbers"
        ) from None


def _with_defaults(
    assigned: events.TrialAssigned, defaults: Mapping[str, Any] | None
) -> events.TrialAssigned:
    params = _add_defaults(assigned.params, defaults, flatten_config(assigned.config))
    return msgspec.structs.replace(assigned, params=params)


def _add_defaults(
    params: Mapping[str, Any], defaults: Mapping[str, Any] | None, config: Mapping[str, Any]
) -> dict[str, Any]:
    """Return params with defaults for those that the study does not search.

    A value of the study's configuration comes before a default of the same name.
    """
    defaults = {name: config.get(name, default) for name, default in (defaults or {}).items()}
    return {**defaults, **params}
