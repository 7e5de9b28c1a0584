"""Trial: the handle of a trial in the training script.

```python
with trialbus.attach(defaults={"lr": 1e-3}, budget=20) as trial:
    for epoch in range(trial.budget):
        ...
        trial.report(epoch, {"val/accuracy": accuracy})
```
"""

from __future__ import annotations

import os
import random
import socket
import time
import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, SupportsFloat, cast

import msgspec

from trialbus.client.link import Link
from trialbus.client.presence import Presence
from trialbus.errors import SpecError, TrialPruned
from trialbus.messages import events
from trialbus.study.nested_config import Params, flatten_config, merge_configs
from trialbus.study.validation import is_mapping
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
from trialbus.trainer.metrics import MAX_STEP, convert_step, flatten_metrics
from trialbus.trainer.termination import Termination

_TRACEBACK_LINES = 20


class Trial:
    """A trial of a study, as the training script sees the trial. Made by `attach`.

    Use the trial as a context manager around the training: a normal end completes the trial,
    `TrialPruned` ends the `with` block quietly, Ctrl-C or SIGTERM hand the trial back to be run
    again, and any other exception marks the trial as failed and is raised again.

    Attributes:
        study: Name of the study.
        number: Number of the trial in its study, from 0.
        attempt: 0 for the first run of the trial, one more each time the trial is handed out again.
        params: Value of each param by name, read-only: `params["model.width"]`,
            `params["model"]["width"]`, `params.nested()`.
        seed: Seed for this trial.
        budget: Number of steps to train.
        evaluation: How to evaluate the model: `.interval` and `.episodes`, each None if the study
            leaves the choice to the training.
        config_name: Name of the configuration that the training composes, from `study.base_config`;
            else None.
        prune_command: Prune command that `report` or `should_prune` received for this attempt, with
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
        error_type: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        if self._termination.is_requested:
            self._finish("preempted", error="ended by SIGTERM")
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
        """Complete configuration of the trial, read-only: params merged into the study's values.

        The study's values are `base_config` and `trial_overrides`. `config["model"]["width"]` and
        `config["model.width"]` are the same value; `config.nested()` returns a nested dict.
        """
        return Params(merge_configs(self._config, self.params))

    @cached_property
    def checkpoint(self) -> Checkpoints:
        """Checkpoints of this trial, from which the next attempt resumes.

        The folder lies in `$TRIALBUS_CHECKPOINTS`, by default `.trialbus/checkpoints`.
        """
        number = self.number if self.study else self.seed  # stand-alone runs share no checkpoints
        return Checkpoints(locate_checkpoints(self.study, number), fresh=self.attempt == 0)

    @property
    def budget(self) -> int:
        """Number of steps to train: the study's budget, else the `budget` given to `attach`.

        Raises:
            SpecError: Neither the study nor `attach` gave a budget.
        """
        if self._budget is None:
            raise SpecError(
                "study.budget",
                "neither the study nor attach(budget=...) says how many steps to train",
            )
        return self._budget

    def report(self, step: int, metrics: Mapping[str, Any], *, wait: float = 0.0) -> None:
        """Publish an evaluation and return in microseconds, also while the hub is unavailable.

        Args:
            step: Step that was evaluated: a non-negative epoch, update or episode.
            metrics: Numbers by name; nested mappings are flattened with `/`. NaN is allowed.
            wait: Seconds to wait at most for the decision about this step, the same decision that
                Optuna's `report` and `should_prune` would make; without a decision in time the
                training goes on. By default a prune is noticed at the first report after its
                arrival.

        Raises:
            TrialPruned: The trial was pruned; let the exception leave the training. The attributes
                `step`, `reason` and `by` say why, and who pruned the trial.
            TypeError: `step` is not an integer, `metrics` is not a mapping, a name is not text, or
                a metric is not one number; names the metric.
            ValueError: `step` is negative or above 2**31 - 1, `metrics` or a name is empty, or an
                integer is beyond the range of a float.
            OutboxFullError: The hub has been away for so long that the outbox is full.

        Example:
            >>> trial.report(3, {"val": {"accuracy": 0.93, "loss": 0.2}})  # doctest: +SKIP
        """
        if type(step) is not int or not 0 <= step <= MAX_STEP:
            step = convert_step(step)
        self._channel.publish(
            events.EvaluationComplete(
                study=self.study,
                trial=self.number,
                attempt=self.attempt,
                step=step,
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
            raise self._make_pruned_error()

    def log_artifact(self, path: str | os.PathLike[str]) -> str:
        """Store a copy of a file as an artifact of the trial and return the artifact's id.

        The copy lies in `$TRIALBUS_ARTIFACTS`, by default `.trialbus/artifacts`, with the id as its
        name. `optuna.artifacts.FileSystemArtifactStore` and `optuna-dashboard --artifact-dir` read
        that folder.

        Args:
            path: File to copy.

        Raises:
            OSError: The file cannot be read, or the folder cannot be written.
        """
        event = store_artifact(
            Path(path), study=self.study, trial=self.number, attempt=self.attempt
        )
        self._channel.publish(event)
        return event.artifact

    def should_prune(self) -> bool:
        """Tell whether a prune command for this attempt has arrived, and set `prune_command`.

        In distributed training every rank must make the same calls of `should_prune` and `report`.
        """
        if self.prune_command is None:
            self.prune_command = self._ranks.share(self._channel.find_prune(self.attempt))
        return self.prune_command is not None

    def complete(self, values: SupportsFloat | Sequence[SupportsFloat] | None = None) -> None:
        """Complete the trial now.

        Args:
            values: Objective value, or values, of the trial; None takes the values from the
                evaluations.

        Raises:
            TypeError: A value is not a number.
            ValueError: A value is an integer beyond the range of a float.
        """
        self._finish("complete", values=None if values is None else _convert_values(values))

    def set_defaults(
        self, defaults: Mapping[str, Any] | None = None, budget: int | None = None
    ) -> None:
        """Set params and a budget that the study leaves open, as `attach` does.

        Raises:
            SpecError: `defaults` is not a mapping of names, or `budget` is not a number of steps.
        """
        _check_arguments(defaults, budget)
        self.params = Params(_add_defaults(self.params, defaults, self._config))
        self._budget = budget if self._budget is None else self._budget

    def _make_pruned_error(self) -> TrialPruned:
        prune = self.prune_command
        assert prune is not None
        by_text = f" by {prune.by}" if prune.by else ""
        reason_text = f": {prune.reason}" if prune.reason else ""
        return TrialPruned(
            f"trial {self.number} of {self.study!r} was pruned{by_text} at step {prune.step}"
            f"{reason_text}",
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
    """The trial of the worker to which this process is attached."""

    trial: Trial | None = None
    text: str = ""  # value of `$TRIALBUS_TRIAL`
    pid: int = 0  # a forked child is not attached


_attached = _Attached()


def attach(
    study: str | None = None,
    *,
    defaults: Mapping[str, Any] | None = None,
    budget: int | None = None,
    endpoint: str | None = None,
    timeout_s: float | None = None,
) -> Trial:
    """Return the trial that this process runs.

    In a process that a worker started, this is the worker's trial, and further calls return the
    same object. In any other process the optimizer is asked for a trial of `study`. Without `study`
    the trial is stand-alone: `defaults` are the params and reports are printed, so that the same
    script also runs by hand.

    In distributed training (`torch.distributed`) every rank attaches, after
    `init_process_group()`, and every rank makes the same reports: rank 0 speaks for the trial, and
    a prune reaches all ranks at the same report.

    Args:
        study: Study from which to request a trial, unless a worker has given a trial.
        defaults: Params of a stand-alone trial; in a study, params that the study does not search.
            Values may be of any type; in distributed training pickle has to know the type.
        budget: Number of steps to train if the study has no budget.
        endpoint: Address of the hub; None means `$TRIALBUS_ENDPOINT` or the default.
        timeout_s: Seconds to wait for a requested trial; None means no limit.

    Raises:
        SpecError: `$TRIALBUS_TRIAL` is malformed, `defaults` is not a mapping of names, or `budget`
            is not a number of steps.
        HubUnavailableError: No hub answered within `timeout_s`.
        TrialbusError: No trial was handed out within `timeout_s`, or `torchrun` started several
            processes and there is no process group yet.

    Example:
        >>> with attach(defaults={"lr": 1e-3}, budget=20) as trial:  # doctest: +SKIP
        ...     trial.report(0, {"loss": train(trial.params["lr"])})
    """
    _check_arguments(defaults, budget)
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


def _check_arguments(defaults: object, budget: object) -> None:
    """Check the arguments of `attach`, which a script may take from its command line."""
    if defaults is not None and not is_mapping(defaults):
        raise SpecError("defaults", f"{defaults!r} is not a mapping (expected params by name)")
    for name in cast("Iterable[object]", defaults or ()):
        if not isinstance(name, str) or not name:
            raise SpecError("defaults", f"{name!r} is not the name of a param (expected text)")
    if budget is not None and not (isinstance(budget, int) and budget >= 0):
        raise SpecError("budget", f"{budget!r} is not a number of steps (expected an integer)")


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
    sequence = list(values) if isinstance(values, Sequence) else [values]
    try:
        if isinstance(values, str | bytes):
            raise TypeError  # noqa: TRY301 - float() accepts text such as "1"
        return [float(value) for value in sequence]
    except OverflowError:
        raise ValueError(
            "the objective is an integer beyond the range of a float, expected at most 1.8e308"
        ) from None
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
    """Add defaults for the params that the study does not search.

    A value of the study's configuration takes precedence over a default of the same name.
    """
    defaults = {name: config.get(name, default) for name, default in (defaults or {}).items()}
    return {**defaults, **params}
