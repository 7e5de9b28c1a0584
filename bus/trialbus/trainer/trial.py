"""Trial: the handle of a trial in the training script.

```python
with trialbus.attach(defaults={"lr": 1e-3}, budget=20) as trial:
    for epoch in range(trial.budget):
        ...
        trial.report(epoch, {"val/accuracy": accuracy})
```
"""

from __future__ import annotations

import itertools
import os
import socket
import time
import traceback
import weakref
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, SupportsFloat

import msgspec

from trialbus.errors import SpecError, TrialPruned, is_pruned
from trialbus.messages import events
from trialbus.study.measured_constraints import convert_violation
from trialbus.study.nested_config import Params, flatten_config, merge_configs
from trialbus.study.search_space import Choice, Param
from trialbus.study.trial_attributes import AttributeKeys, convert_value
from trialbus.trainer.artifacts import store_artifact
from trialbus.trainer.channel import Channel, SilentChannel
from trialbus.trainer.checkpoint import Checkpoints, locate_checkpoints
from trialbus.trainer.defaults import add_defaults, check_defaults
from trialbus.trainer.distributed import Ranks
from trialbus.trainer.metrics import (
    MAX_STEP,
    NO_METRICS,
    convert_step,
    convert_values,
    flatten_metrics,
)
from trialbus.trainer.param_request import build_param_request
from trialbus.trainer.run_directory import make_run_directory
from trialbus.trainer.termination import Termination

_TRACEBACK_LINES = 20

_CAUSES: dict[events.TrialState, events.FailureCause] = {
    "failed": "exception",
    "preempted": "preempted",
}


class Trial:
    """A trial of a study, as the training script sees the trial. Made by `attach`.

    Use the trial as a context manager around the training: a normal end completes the trial,
    `TrialPruned`, of trialbus or of Optuna, ends the `with` block quietly, Ctrl-C or SIGTERM hand
    the trial back to be run again, and any other exception marks the trial as failed and is raised
    again.

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
        define_by_run: Objectives and first suggestions, where the training asks for its params
            itself; else None.
        config_name: Name of the configuration that the training composes, from `study.base_config`;
            else None.
        prune_command: Prune command that `report` or `should_prune` received for this attempt, with
            `step`, `reason` and `by`; else None.
        is_closed: Whether the `with` block was left.
        pid: Id of the process that attached to the trial.
    """

    def __init__(
        self, assigned: events.TrialAssigned, channel: Channel, budget: int | None, ranks: Ranks
    ) -> None:
        self._assigned = assigned
        self.study = assigned.study
        self.number = assigned.trial
        self.attempt = assigned.attempt
        self.params = Params(assigned.params)
        self.evaluation = assigned.evaluation
        self.config_name = assigned.config_name
        self.define_by_run = assigned.define_by_run
        self._config = flatten_config(assigned.config)
        self.seed = assigned.seed
        self._budget = budget if assigned.budget is None else assigned.budget
        self._ranks = ranks
        self._channel = channel
        self._attached_mono_s = time.monotonic()
        self.prune_command: events.Prune | None = None
        self._constraints: dict[str, float] = {}
        self._attribute_keys = AttributeKeys()
        self.is_closed = False
        self._is_finished = False
        self._is_copy = False
        self.pid = os.getpid()
        self._token = next(_tokens)
        _trials[self._token] = self
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
        if self._is_copy or self.is_closed:
            return False
        if self._termination.is_requested:
            self._leave_or_preempt("ended by SIGTERM")
        elif error is None or (isinstance(error, SystemExit) and not error.code):
            self.complete()
        elif is_pruned(error):
            self._finish("pruned")
        elif isinstance(error, KeyboardInterrupt):
            self._leave_or_preempt("interrupted from the keyboard")
        else:
            lines = "".join(traceback.format_exception(error)).splitlines()
            if isinstance(error, SystemExit):
                lines[-1] = f"the training called sys.exit({error.code!r})"
            self._finish("failed", error="\n".join(lines[-_TRACEBACK_LINES:]))
        self._close()
        return is_pruned(error)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the params of the trial, not the right to speak for the trial."""
        assigned = msgspec.structs.replace(self._assigned, params=dict(self.params))
        return _restore_trial, (self.pid, self._token, assigned, self._budget)

    @property
    def rank(self) -> int:
        """Rank of this process in distributed training, else 0."""
        return self._ranks.rank

    @property
    def is_speaker(self) -> bool:
        """Whether this process speaks for the trial; else its reports and its end are dropped."""
        return not isinstance(self._channel, SilentChannel)

    @property
    def config(self) -> Params:
        """Complete configuration of the trial, read-only: params merged into the study's values.

        The study's values are `base_config` and `trial_overrides`. `config["model"]["width"]` and
        `config["model.width"]` are the same value; `config.nested()` returns a nested dict.
        """
        return Params(merge_configs(self._config, self.params))

    @cached_property
    def run_dir(self) -> Path:
        """Folder for the files of this trial, which all attempts share; made when first read.

        The folder is `$TRIALBUS_RUN_DIR`, by default `.trialbus/runs/<study>/<trial>`.

        Raises:
            OSError: The folder cannot be made.

        Example:
            >>> (trial.run_dir / "notes.txt").write_text("mine")  # doctest: +SKIP
        """
        return make_run_directory(self.study, self._folder_number)

    @cached_property
    def checkpoint(self) -> Checkpoints:
        """Checkpoints of this trial, from which the next attempt resumes.

        The folder lies in `$TRIALBUS_CHECKPOINTS`, by default `.trialbus/checkpoints`.
        """
        is_fresh = self.attempt == 0 and self.is_speaker
        return Checkpoints(locate_checkpoints(self.study, self._folder_number), fresh=is_fresh)

    @property
    def _folder_number(self) -> int:
        return self.number if self.study else self.seed  # stand-alone runs share no files

    @property
    def budget(self) -> int:
        """Number of steps to train: the study's budget, else the `budget` given to `attach`.

        Raises:
            SpecError: Neither the study nor `attach` gave a budget.
        """
        if self._budget is None:
            raise SpecError(
                "study.budget",
                "nothing says how many steps to train (expected study.budget=5 in the study, "
                "optimize(..., budget=5), or attach(budget=5))",
            )
        return self._budget

    def report(
        self, step: int, metrics: Mapping[str, Any] = NO_METRICS, *, wait: float = 0.0
    ) -> None:
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
            ValueError: `step` is negative or above 2**31 - 1, `metrics` or a name is empty, there
                are more than 1000 metrics, or an integer is beyond the range of a float.
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

    def request_param(self, name: str, param: Param) -> Choice:
        """Ask the optimizer for the value of a param, and wait for the answer.

        A suggestion that came with the trial and that `param` allows is returned at once. For
        studies with `define_by_run`.

        Args:
            name: Name of the param. A repeated name yields the same value.
            param: Range or choices of the param.

        Raises:
            TrialPruned: The trial is to end.
            ValueError: The study cannot have the param, for example since an earlier trial has a
                param of another kind under this name.

        Source:
            `optuna.trial.Trial.suggest_float` and its like.
        """
        request = build_param_request(self._assigned, name, param)
        if not request.answer:
            self._channel.publish(request, at_once=False)
            return param.decode(request.value)
        answer = self._ranks.share(self._channel.request_param(request) if self.rank == 0 else None)
        assert answer is not None
        if isinstance(answer, events.Prune):
            self.prune_command = answer
            raise self._make_pruned_error()
        if answer.error is not None:
            raise ValueError(f"param {name!r}: {answer.error}")
        return param.decode(answer.value)

    def log_artifact(self, path: str | os.PathLike[str]) -> str:
        """Store a copy of a file as an artifact of the trial and return the artifact's id.

        The copy lies in `$TRIALBUS_ARTIFACTS`, by default `.trialbus/artifacts`, with the id as its
        name. `optuna.artifacts.FileSystemArtifactStore` and `optuna-dashboard --artifact-dir` read
        that folder. A process that does not speak for the trial stores nothing; the id is empty.

        Args:
            path: File to copy.

        Raises:
            OSError: The file cannot be read, or the folder cannot be written.
        """
        if not self.is_speaker:
            self._channel.publish(
                events.ArtifactLogged(
                    study=self.study,
                    trial=self.number,
                    artifact="",
                    filename=Path(path).name,
                    mimetype="",
                )
            )
            return ""
        event = store_artifact(
            Path(path), study=self.study, trial=self.number, attempt=self.attempt
        )
        self._channel.publish(event)
        return event.artifact

    def set_user_attr(self, key: str, value: Any) -> None:
        """Set a user attribute of the trial and return in microseconds, as `report` does.

        The attribute is recorded as Optuna's `trial.set_user_attr` records it, and stands in the
        exports of the report. A later value replaces the earlier; the next attempt of the trial
        keeps what it does not set.

        Args:
            key: Text of 1 to 512 characters that does not begin with `trialbus:`.
            value: What JSON can hold, in at most 65,535 bytes; tuples become lists, and the keys of
                mappings become text.

        Raises:
            TypeError: `key` is not text, or JSON cannot hold `value`.
            ValueError: `key` or `value` is beyond what databases hold, `key` differs from another
                in case or accents alone, or the trial has more than 1000 attributes.
            OutboxFullError: The hub has been away for so long that the outbox is full.

        Example:
            >>> trial.set_user_attr("n_parameters", 1_200_000)  # doctest: +SKIP

        Source:
            `optuna.trial.Trial.set_user_attr`.
        """
        converted = convert_value(key, value)
        self._attribute_keys.add(key)
        self._channel.publish(
            events.TrialAttributeSet(
                study=self.study,
                trial=self.number,
                attempt=self.attempt,
                key=key,
                value=converted,
            ),
            at_once=False,
        )

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
        self._finish("complete", values=None if values is None else convert_values(values))

    def set_constraint(self, key: str, value: SupportsFloat) -> None:
        """Set the violation of a constraint that the training measures itself.

        A complete trial with a violation above zero is never the best.

        Args:
            key: Name of the constraint, of 1 to 500 characters.
            value: Violation; at most zero where the trial meets the constraint.

        Raises:
            TypeError: `key` is not text, or `value` is not a number.
            ValueError: No storage can hold `key`, or `value` is not finite.

        Source:
            `optuna.trial.Trial.set_constraint`.
        """
        self._constraints[key] = convert_violation(key, value)

    def set_defaults(
        self, defaults: Mapping[str, Any] | None = None, budget: int | None = None
    ) -> None:
        """Set params and a budget that the study leaves open, as `attach` does.

        Raises:
            SpecError: `defaults` is not a mapping of names, or `budget` is not a number of steps.
        """
        check_defaults(defaults, budget)
        self.params = Params(add_defaults(self.params, defaults, self._config))
        self._budget = budget if self._budget is None else self._budget

    def abandon(self, error: str) -> None:
        """End a trial whose training was left, unless the trial has ended.

        The trial is pruned if a prune command has arrived, and fails otherwise.
        """
        if not (self._is_copy or self.is_closed):
            self._finish("pruned" if self.prune_command else "failed", error=error)
            self._close()

    def become_copy(self, pid: int) -> None:
        """Let the trial speak for nobody, since the trial belongs to the process `pid`."""
        self._is_copy = True
        self.pid = pid
        self._channel = SilentChannel(
            f"this process has a copy of the trial of process {pid}, which speaks for the trial: "
            "what the copy reports is dropped"
        )
        self._ranks.leave()
        self._termination.release()

    def _close(self) -> None:
        self.is_closed = True
        self._channel.close()
        self._termination.release()

    def _make_pruned_error(self) -> TrialPruned:
        prune = self.prune_command
        assert prune is not None
        by_text = f" by {prune.by}" if prune.by else ""
        at_text = f"step {prune.step}: {prune.reason}" if prune.reason else f"step {prune.step}"
        if prune.reason.startswith("step "):  # a pruner's reason names the step itself
            at_text = prune.reason
        return TrialPruned(
            f"trial {self.number} of {self.study!r} was pruned{by_text} at {at_text}",
            step=prune.step,
            reason=prune.reason,
            by=prune.by,
        )

    def _leave_or_preempt(self, reason: str) -> None:
        """Leave the verdict to the worker, which knows who sent the signal; else hand it back."""
        if self._is_finished or not self._channel.note_signal():
            self._finish("preempted", error=reason)
        self._is_finished = True

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
                    cause=_CAUSES.get(state),
                    values=values,
                    error=error,
                    constraints=self._constraints,
                )
            )


_tokens = itertools.count()
#: The trials of this process by a number that is never given twice.
_trials: weakref.WeakValueDictionary[int, Trial] = weakref.WeakValueDictionary()


def _make_copies() -> None:
    for trial in list(_trials.values()):
        trial.become_copy(trial.pid)


os.register_at_fork(after_in_child=_make_copies)


def _restore_trial(
    pid: int, token: int, assigned: events.TrialAssigned, budget: int | None
) -> Trial:
    """Return the trial that was pickled in this process, or a copy of another process's trial."""
    trial = _trials.get(token) if pid == os.getpid() else None
    if trial is None:
        trial = Trial(assigned, SilentChannel(), budget, Ranks(is_given=True))
        trial.become_copy(pid)
    return trial
