"""Attempt: a training that a slot of a worker runs, watched until its processes have ended."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, TypeAlias

from trialbus.client.handover import Handover
from trialbus.client.link import Link
from trialbus.client.subscriber import replay
from trialbus.errors import TrialbusError
from trialbus.messages import events
from trialbus_services.worker.collectors.collector import Collector
from trialbus_services.worker.memory import MemoryLimit, describe_process
from trialbus_services.worker.trainers import Trainer
from trialbus_services.worker.training_process import TrainingExit, read_tail

logger = logging.getLogger(__name__)

EndReason: TypeAlias = events.FailureCause | Literal["abandoned", "lingering", "pruned"]
"""Why a worker ends a training: a cause, or since another attempt has begun, since the training has
published the end of the trial and goes on, or since the trial of an untouched program was pruned.
"""

_SIGNALS_TO_END = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
_PERIOD_S = 1.0
_LONGEST_PART = 0.1  # of a limit: how late the worker may notice that a limit is exceeded
_NOTICE_S = 5.0  # in which most trainings end after the end of their trial


class Attempt:
    """An attempt at a trial: the training, and why the worker ended the training.

    Args:
        assigned: The trial.
        link: The worker's link.
        log: File to which the output of the training is appended.
        memory: Limit of memory.
        exit_grace_s: Seconds that the process has to exit after the end of its trial; None for no
            limit.
        since: Offset of the log before every report of the attempt.
    """

    def __init__(
        self,
        assigned: events.TrialAssigned,
        *,
        link: Link,
        log: Path,
        memory: MemoryLimit,
        exit_grace_s: float | None,
        since: int,
    ) -> None:
        self.assigned = assigned
        self.log = log
        self.handover = Handover(link, assigned.request)
        self.waits_for = ""  #: what the slot waits for after the end of the trial
        self.end_reason: EndReason | None = None
        self._link = link
        self._memory = memory
        self._exit_grace_s = exit_grace_s
        self._since = since
        #: Publishes the metrics of a program that knows nothing of trialbus.
        self._collector: Collector | None = None
        self._pid: int | None = None
        self._task: asyncio.Task[TrainingExit] | None = None
        self._end_text = ""
        self._finished_at: float | None = None
        self._progress: dict[str, int] = {}

    def __str__(self) -> str:
        trial = self.assigned
        return f"trial {trial.trial} of {trial.study!r}, attempt {trial.attempt}"

    async def run(
        self,
        trainer: Trainer,
        env: Mapping[str, str],
        publish: Callable[[events.EvaluationComplete], object],
    ) -> None:
        """Run the training until all of its processes have ended; a cancellation preempts it.

        Args:
            trainer: Trainer that runs the training.
            env: Environment variables by which the training finds the trial.
            publish: Publishes an evaluation of a program that does not publish its own.
        """
        self._task = asyncio.create_task(self._train(trainer, env, publish))
        watch = asyncio.create_task(self._watch())
        try:
            await asyncio.wait([self._task])
        except asyncio.CancelledError:
            self._task.cancel()
            await asyncio.wait([self._task])
            raise
        finally:
            watch.cancel()
            if self._collector is not None:
                await self._collector.finish()

    def prune(self, reason: str) -> None:
        """End a program whose metrics are collected; a trainer hears the command itself."""
        if self._collector is not None:
            self.end("pruned", reason)

    def end(self, reason: EndReason, text: str) -> None:
        """End the training, by SIGTERM and after the grace by SIGKILL; the first reason counts."""
        if self._task is not None and not self._task.done() and self.end_reason is None:
            self.end_reason, self._end_text = reason, text
            self._task.cancel()

    def note_finish(self) -> None:
        """Note that the trial of this attempt has ended, so that the process should exit."""
        if self._finished_at is None:
            self._finished_at = time.monotonic()

    @property
    def is_told_to_end(self) -> bool:
        """Whether a signal to terminate ended the training, which the worker did not send."""
        if self.end_reason is not None:
            return False
        training_exit = self._get_exit()
        number = None if training_exit is None else training_exit.signal
        return self.handover.is_signalled or number in _SIGNALS_TO_END

    def hand_back(self, reason: str) -> None:
        """Hand the trial back for another attempt, unless the training has ended by itself."""
        if self.end_reason is None and (self._get_exit() is None or self.is_told_to_end):
            self.end_reason, self._end_text = "preempted", reason

    def conclude(self, *, kernel_killed: bool = False) -> events.TrialFinished:
        """Return the verdict of the worker, which counts unless the trainer published one before.

        Args:
            kernel_killed: Whether the kernel has just killed a process for want of memory.
        """
        state: events.TrialState = "pruned"
        cause = None
        if self.end_reason != "pruned":
            cause = self._find_cause(kernel_killed=kernel_killed)
            state = "preempted" if cause == "preempted" else "failed" if cause else "complete"
        training_exit = self._get_exit()
        return events.TrialFinished(
            study=self.assigned.study,
            trial=self.assigned.trial,
            attempt=self.assigned.attempt,
            state=state,
            cause=cause,
            error=self._describe_end(cause),
            exit_code=None if training_exit is None else training_exit.code,
        )

    def _find_cause(self, *, kernel_killed: bool) -> events.FailureCause | None:
        match self.end_reason:
            case None:
                pass
            case "abandoned" | "lingering" | "pruned":
                return "preempted"
            case cause:
                return cause
        training_exit = self._get_exit()
        if training_exit is None:
            return "exception"
        if training_exit.signal == signal.SIGKILL and kernel_killed:
            return "out_of_memory"
        if training_exit.signal is not None or self.handover.is_signalled:
            return "killed"
        return "exception" if training_exit.code else None

    def _describe_end(self, cause: events.FailureCause | None) -> str | None:
        if self.end_reason == "pruned":
            return None
        if self.end_reason is not None:
            tail = ""
            if cause != "preempted":
                with contextlib.suppress(OSError):
                    tail = read_tail(self.log)
            return f"{tail}\n{self._end_text}".strip() or None
        training_exit = self._get_exit()
        if training_exit is None:
            failure = None if self._task is None else self._task.exception()
            return f"the trainer could not be started: {failure} (log {self.log})"
        error = training_exit.error
        if cause == "out_of_memory":
            return f"{error}: the kernel killed it for want of memory"
        if cause == "killed" and training_exit.signal is None:
            return f"{error or training_exit.log_tail}\nSIGTERM or SIGINT ended the trainer".strip()
        return self._describe_lack() if cause is None else error

    def _describe_lack(self) -> str | None:
        """Return what may explain that a complete trial lacks values; None if nothing may."""
        return None if self._collector is None else self._collector.describe_lack()

    def _get_exit(self) -> TrainingExit | None:
        """Return how the training ended by itself; None if ended by the worker, or not started.

        Raises:
            Exception: A fault of the trainer, which is none of the training.
        """
        task = self._task
        if task is None or not task.done() or task.cancelled():
            return None
        return None if isinstance(task.exception(), OSError | ValueError) else task.result()

    async def _train(
        self,
        trainer: Trainer,
        env: Mapping[str, str],
        publish: Callable[[events.EvaluationComplete], object],
    ) -> TrainingExit:
        self._collector = trainer.open_collector(self.assigned, self.log, publish)
        follow = None
        if self._collector is not None:
            follow = asyncio.create_task(self._collector.follow())
        try:
            return await trainer.run(
                self.assigned, {**env, **self.handover.environment}, self.log, self._set_pid
            )
        finally:
            if follow is not None:
                follow.cancel()

    def _set_pid(self, pid: int) -> None:
        self._pid = pid

    async def _watch(self) -> None:
        """End the training when a limit is exceeded, or when it goes on after its trial."""
        trial = self.assigned
        limits = (trial.timeout_s, trial.silence_s, self._exit_grace_s)
        period_s = min(_PERIOD_S, *[_LONGEST_PART * limit for limit in limits if limit])
        begun = reported_at = time.monotonic()
        while self.end_reason is None:
            await asyncio.sleep(period_s)
            now = time.monotonic()
            if self._finished_at is not None:
                self._watch_exit(now - self._finished_at)
                continue
            if trial.timeout_s is not None and now - begun > trial.timeout_s:
                reason = f"the attempt took longer than study.trial_timeout_s={trial.timeout_s:g}"
                self.end("timed_out", reason)
            elif excess := self._pid and self._memory.find_excess(self._pid):
                self.end("out_of_memory", excess)
            elif trial.silence_s is not None:
                if self._has_published() or (
                    now - reported_at > trial.silence_s and await self._has_reported()
                ):
                    reported_at = now
                elif now - reported_at > trial.silence_s:
                    reason = f"no report came for study.silence_s={trial.silence_s:g}"
                    self.end("silent", reason)

    def _watch_exit(self, waited_s: float) -> None:
        """Say what the slot waits for after the end of the trial, and end it after the grace."""
        grace_s = self._exit_grace_s
        process = "its process" if self._pid is None else describe_process(self._pid)
        if grace_s is not None and waited_s > grace_s:
            logger.warning(
                "%s has ended, and %s has not exited for worker.exit_grace_s=%g: ending it",
                self,
                process,
                grace_s,
            )
            self.end("lingering", f"the trial had ended, and {process} did not exit")
        elif waited_s > _NOTICE_S:
            limit = "" if grace_s is None else f", for {grace_s:g} s (worker.exit_grace_s)"
            self.wait_for(f"{process} to exit after the end of {self}{limit}")

    def wait_for(self, text: str) -> None:
        """Log and keep what the slot waits for."""
        if text != self.waits_for:
            self.waits_for = text
            logger.info("slot %d waits for %s", self.assigned.slot, text)

    def _has_published(self) -> bool:
        """Return whether a process of the training has published something since the last call."""
        earlier, self._progress = self._progress, self.handover.read_progress()
        return self._progress != earlier

    async def _has_reported(self) -> bool:
        """Return whether the log has new reports, which a program without outbox may have sent.

        True as well if the hub does not tell.
        """
        if self._progress:  # the program has an outbox, and puts nothing in
            return False
        try:
            return await asyncio.to_thread(self._read_reports)
        except TrialbusError:
            return True

    def _read_reports(self) -> bool:
        trial = self.assigned
        records = replay(
            events.EvaluationComplete,
            study=trial.study,
            trial=trial.trial,
            start=self._since,
            link=self._link,
        )
        has_reports = False
        for record in records:
            self._since = record.offset + 1
            has_reports = True
        return has_reports
