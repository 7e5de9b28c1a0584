"""The worker's slots: each asks for a trial, runs it, says how it ended, and asks again."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import socket
import uuid
from dataclasses import dataclass, field
from pathlib import Path

from trialbus import events
from trialbus.link import Link
from trialbus.presence import Presence
from trialbus.publisher import Publisher
from trialbus.subscriber import Subscriber, subscribe
from trialbus.trial import environment
from trialbus_services.worker.process import Exit, run_training

logger = logging.getLogger(__name__)

_FLUSH_S = 10.0
_LOOK_S = 0.5


@dataclass(frozen=True, kw_only=True)
class WorkerConfig:
    """What a worker runs, and how.

    Attributes:
        endpoint: Where the hub is.
        command: The training: a program and its arguments. Nothing that comes over the bus is run.
        study: Trials of this study only; empty for any.
        name: For people; empty for host-pid.
        slots: Trials at the same time.
        env: Added to the worker's environment.
        cwd: Folder of the training; None is the worker's.
        logs: Folder for `<study>/<trial>-<attempt>.log`.
        grace_s: Seconds between SIGTERM and SIGKILL when a training is ended.
        ttl_s: Seconds of silence after which the worker counts as lost.
        connect_s: Seconds to wait for the hub at start.
    """

    endpoint: str
    command: list[str]
    logs: Path
    study: str = ""
    name: str = ""
    slots: int = 1
    env: dict[str, str] = field(default_factory=dict[str, str])
    cwd: str | None = None
    grace_s: float = 5.0
    ttl_s: float = 10.0
    connect_s: float = 10.0


class Worker:
    """Runs trials until it is told to stop.

    Example:
        >>> await Worker(config).run(stop)  # doctest: +SKIP
    """

    def __init__(self, config: WorkerConfig) -> None:
        self.config = config
        self.name = config.name or f"{socket.gethostname()}-{os.getpid()}"
        self._answers: dict[str, asyncio.Future[events.TrialAssigned]] = {}
        self._running: dict[tuple[str, int], tuple[int, asyncio.Task[Exit]]] = {}

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set; running trainings are ended then and handed back.

        Raises:
            HubUnavailableError: No hub answered at start.
        """
        config = self.config
        with Link(config.endpoint) as link:
            link.wait_connected(config.connect_s)
            logger.info("worker %s on %s: %d slots, study %r", self.name, config.endpoint, config.slots, config.study)
            with (
                subscribe(events.TrialAssigned, study=config.study or None, link=link) as inbox,
                Publisher(link=link) as publisher,
            ):
                inbox.wait_ready(config.connect_s)
                listener = asyncio.create_task(self._listen(inbox))
                while not stop.is_set():
                    await self._serve(link, publisher, stop)
                listener.cancel()
                publisher.flush(_FLUSH_S)

    async def _serve(self, link: Link, publisher: Publisher, stop: asyncio.Event) -> None:
        """Run the slots for as long as one presence session lasts."""
        config = self.config
        with Presence(
            link=link,
            kind="worker",
            name=self.name,
            ttl_s=config.ttl_s,
            study=config.study,
            info={"study": config.study, "slots": str(config.slots)},
        ) as presence:
            slots = [
                asyncio.create_task(self._slot(slot, presence.session, publisher)) for slot in range(config.slots)
            ]
            tasks = [asyncio.create_task(stop.wait()), *slots]
            while not presence.lost:
                done, _ = await asyncio.wait(tasks, timeout=_LOOK_S, return_when=asyncio.FIRST_COMPLETED)
                if done:
                    break
            else:
                logger.warning("the hub declared this worker lost; its trials are handed out again")
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                raise result

    async def _slot(self, slot: int, session: str, publisher: Publisher) -> None:
        while True:
            request = uuid.uuid4().hex
            answer = self._answers[request] = asyncio.get_running_loop().create_future()
            try:
                publisher.publish(
                    events.TrialRequested(
                        study=self.config.study, request=request, session=session, worker=self.name, slot=slot
                    )
                )
                trial = await answer
            finally:
                del self._answers[request]
            publisher.publish(await self._run(trial, publisher))

    async def _run(self, trial: events.TrialAssigned, publisher: Publisher) -> events.TrialFinished:
        """Run a trial and return the last word on it; the trainer has usually said it before."""
        config = self.config
        log = config.logs / re.sub(r"[^\w.-]", "_", trial.study) / f"{trial.trial}-{trial.attempt}.log"
        logger.info("trial %d of %r, attempt %d", trial.trial, trial.study, trial.attempt)
        training = asyncio.create_task(
            run_training(
                config.command,
                env={**os.environ, **config.env, **environment(trial, config.endpoint)},
                cwd=config.cwd,
                log=log,
                grace_s=config.grace_s,
            )
        )
        key = (trial.study, trial.trial)
        self._running[key] = (trial.attempt, training)
        try:
            ended = await asyncio.shield(training)
        except asyncio.CancelledError:
            preempted = _finished(trial, "preempted", error=f"worker {self.name} ended it")
            if training.cancelled():  # a later attempt took its place
                return preempted
            training.cancel()
            await asyncio.wait([training])
            publisher.publish(preempted)
            raise
        finally:
            if self._running.get(key, (None, None))[1] is training:
                del self._running[key]
        logger.info("trial %d of %r exited with %d", trial.trial, trial.study, ended.code)
        return _finished(trial, "failed" if ended.code else "complete", error=ended.error, exit_code=ended.code)

    async def _listen(self, inbox: Subscriber) -> None:
        async for event in inbox:
            if not isinstance(event, events.TrialAssigned):
                continue
            answer = self._answers.get(event.request)
            if answer is not None and not answer.done():
                answer.set_result(event)
            attempt, training = self._running.get((event.study, event.trial), (event.attempt, None))
            if training is not None and attempt < event.attempt:
                training.cancel()


def _finished(
    trial: events.TrialAssigned, state: events.TrialState, *, error: str | None, exit_code: int | None = None
) -> events.TrialFinished:
    return events.TrialFinished(
        study=trial.study, trial=trial.trial, attempt=trial.attempt, state=state, error=error, exit_code=exit_code
    )
