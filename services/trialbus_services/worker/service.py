"""The worker's slots: each requests a trial, runs it, publishes its end, and requests again."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import uuid
from pathlib import Path
from typing import Any

from trialbus.client.link import Link
from trialbus.client.presence import Presence
from trialbus.client.publisher import Publisher
from trialbus.client.subscriber import Subscriber, subscribe
from trialbus.messages import events
from trialbus.protocol.endpoint import resolve
from trialbus.trainer.assignment import make_environment
from trialbus_services.process import exit_codes
from trialbus_services.worker.config import WorkerConfig
from trialbus_services.worker.resources import measure_slot
from trialbus_services.worker.trainers import Trainer
from trialbus_services.worker.training_process import Exit

logger = logging.getLogger(__name__)

_LOOK_S = 0.5
_AFTERWARDS_S = 1.0


class Worker:
    """Runs trials in slots until `stop` is set.

    Args:
        config: How it serves.
        trainer: What it runs.

    Example:
        >>> await Worker(config, trainer).run(stop)  # doctest: +SKIP
    """

    def __init__(self, config: WorkerConfig, trainer: Trainer) -> None:
        self.config = config
        self._trainer = trainer
        gpus = config.gpus_per_trial if config.devices else 0.0
        self._resources = measure_slot(config.slots, gpus)  # of each slot
        self.name = config.name or f"{socket.gethostname()}-{os.getpid()}"
        self._answers: dict[str, asyncio.Future[events.TrialAssigned]] = {}
        self._running: dict[tuple[str, int], tuple[int, asyncio.Task[Exit]]] = {}

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set; running trainings are ended then and handed back.

        Raises:
            HubUnavailableError: No hub answered at start.
            SpecError: The trainer cannot run any trial.
            LogResetError: The hub serves another log now; the trials of the old one were ended.
        """
        config = self.config
        with Link(config.endpoint) as link:
            link.wait_connected(config.connect_s)
            await self._trainer.start()
            logger.info(
                "worker %s on %s: %d slots, study %r",
                self.name,
                link.endpoint,
                config.slots,
                config.study,
            )
            with (
                subscribe(
                    events.TrialAssigned,
                    events.TrainerLost,
                    study=config.study or None,
                    link=link,
                ) as inbox,
                Publisher(link=link) as publisher,
            ):
                inbox.wait_ready(config.connect_s)
                listener = asyncio.create_task(self._listen(inbox))
                try:
                    while not stop.is_set():
                        await self._serve(link, publisher, listener, stop)
                finally:
                    listener.cancel()
                    await asyncio.wait([listener])
                    await self._trainer.close()

    async def _serve(
        self, link: Link, publisher: Publisher, listener: asyncio.Task[None], stop: asyncio.Event
    ) -> None:
        """Run the slots for as long as one presence session lasts."""
        config = self.config
        presence = Presence(
            link=link,
            kind="worker",
            name=self.name,
            ttl_s=config.ttl_s,
            study=config.study,
            info={
                "study": config.study,
                "host": socket.gethostname(),
                "slots": str(config.slots),
                **{name: f"{amount:g}" for name, amount in self._resources.items()},
            },
        )
        tasks = [
            asyncio.create_task(stop.wait()),
            *(
                asyncio.create_task(self._slot(slot, presence.session, publisher))
                for slot in range(config.slots)
            ),
        ]
        done: set[asyncio.Task[Any]] = set()
        try:
            while not (done or presence.lost):
                done, _ = await asyncio.wait(
                    {listener, *tasks}, timeout=_LOOK_S, return_when=asyncio.FIRST_COMPLETED
                )
            if not done:
                logger.warning("the hub declared this worker lost; its trials are handed out again")
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            presence.close()
        for task in done:
            task.result()

    async def _slot(self, slot: int, session: str, publisher: Publisher) -> None:
        while True:
            request = uuid.uuid4().hex
            answer = self._answers[request] = asyncio.get_running_loop().create_future()
            try:
                publisher.publish(
                    events.TrialRequested(
                        study=self.config.study,
                        request=request,
                        session=session,
                        worker=self.name,
                        slot=slot,
                        resources=self._resources,
                    )
                )
                trial = await answer
            except asyncio.CancelledError:
                # Also if the answer comes this very moment: the trial goes to somebody else.
                publisher.publish(events.RequestWithdrawn(study=self.config.study, request=request))
                raise
            finally:
                del self._answers[request]
            publisher.publish(await self._run(trial, publisher))

    async def _run(self, trial: events.TrialAssigned, publisher: Publisher) -> events.TrialFinished:
        """Run a trial and return its `trial_finished`, which its trainer usually sent before."""
        config = self.config
        log = config.trial_log(trial)
        logger.info("trial %d of %r, attempt %d", trial.trial, trial.study, trial.attempt)
        env = make_environment(trial, resolve(config.endpoint)) | config.slot_environment(
            trial.slot
        )
        training = asyncio.create_task(self._trainer.run(trial, env, log))
        key = (trial.study, trial.trial)
        self._running[key] = (trial.attempt, training)
        try:
            await asyncio.wait([training])
            if not training.cancelled() and not training.exception():
                # Whoever ends every process of a job ends the training a moment before the worker
                # has heard of it: then this is no failure.
                await asyncio.sleep(
                    _AFTERWARDS_S if training.result().code in exit_codes.TOLD_TO_END else 0
                )
        except asyncio.CancelledError:
            training.cancel()
            await asyncio.wait([training])
            publisher.publish(
                _finished(trial, "preempted", error=f"worker {self.name} ended it as it stopped")
            )
            raise
        finally:
            if self._running.get(key, (None, None))[1] is training:
                del self._running[key]
        return self._last_word(trial, training, log)

    def _last_word(
        self, trial: events.TrialAssigned, training: asyncio.Task[Exit], log: Path
    ) -> events.TrialFinished:
        if training.cancelled():
            logger.info("trial %d of %r: attempt %d was given up", *_which(trial))
            return _finished(trial, "preempted", error="this attempt was given up")
        failure = training.exception()
        if isinstance(failure, OSError | ValueError):
            logger.warning("trial %d of %r, attempt %d: %s", *_which(trial), failure)
            where = f"log {log}, worker {self.name}"
            return _finished(
                trial, "failed", error=f"the trainer could not be started: {failure} ({where})"
            )
        ended = training.result()
        logger.info("trial %d of %r, attempt %d: exit code %d", *_which(trial), ended.code)
        return _finished(
            trial,
            "failed" if ended.code else "complete",
            error=ended.error,
            exit_code=ended.code,
        )

    async def _listen(self, inbox: Subscriber[events.Event]) -> None:
        async for event in inbox:
            match event:
                case events.TrialAssigned():
                    answer = self._answers.get(event.request)
                    if answer is not None and not answer.done():
                        answer.set_result(event)
                    self._give_up(event.study, event.trial, before=event.attempt)
                case events.TrainerLost(trial=int(trial), attempt=int(attempt)):
                    # It stands still: nobody waits for it any more, and it would keep its slot.
                    self._give_up(event.study, trial, before=attempt + 1)
                case _:
                    continue

    def _give_up(self, study: str, trial: int, *, before: int) -> None:
        """End the training of an earlier attempt at a trial."""
        attempt, training = self._running.get((study, trial), (before, None))
        if training is not None and attempt < before:
            training.cancel()


def _finished(
    trial: events.TrialAssigned,
    state: events.TrialState,
    *,
    error: str | None,
    exit_code: int | None = None,
) -> events.TrialFinished:
    return events.TrialFinished(
        study=trial.study,
        trial=trial.trial,
        attempt=trial.attempt,
        state=state,
        error=error,
        exit_code=exit_code,
    )


def _which(trial: events.TrialAssigned) -> tuple[int, str, int]:
    return trial.trial, trial.study, trial.attempt
