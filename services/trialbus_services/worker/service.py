"""The worker: slots that request trials, run trainings and publish the end of each trial."""

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
from trialbus_services.config.settings import BusSettings, WorkerSettings
from trialbus_services.process import exit_codes, gpus, paths
from trialbus_services.worker.resources import measure_slot
from trialbus_services.worker.trainers import Trainer
from trialbus_services.worker.training_process import TrainingExit

logger = logging.getLogger(__name__)

_POLL_S = 0.5
_REGISTER_POLL_S = 0.02
_STOP_NOTICE_S = 1.0


class Worker:
    """Runs the trials of a study in slots.

    Args:
        bus: Settings of the bus: address of the hub, and folder of the logs of trials.
        settings: Settings of the worker.
        trainer: Runs the training of each trial.
        study: Study whose trials are run; empty for any study.

    Raises:
        SpecError: There are too few GPUs for the slots.

    Example:
        >>> await Worker(bus, settings, trainer, study="digits").run(stop)  # doctest: +SKIP
    """

    def __init__(
        self, bus: BusSettings, settings: WorkerSettings, trainer: Trainer, *, study: str = ""
    ) -> None:
        self.name = settings.name or f"{socket.gethostname()}-{os.getpid()}"
        self._bus = bus
        self._settings = settings
        self._trainer = trainer
        self._study = study
        self._gpus = gpus.assign_gpus(settings.gpus, settings.gpus_per_trial, settings.slots)
        gpus_per_slot = settings.gpus_per_trial if self._gpus else 0.0
        self._resources = measure_slot(settings.slots, gpus_per_slot)
        self._assignments: dict[str, asyncio.Future[events.TrialAssigned]] = {}  # by request
        self._trainings: dict[tuple[str, int], tuple[int, asyncio.Task[TrainingExit]]] = {}

    async def run(self, stop: asyncio.Event) -> None:
        """Run trials until `stop` is set, then end the trainings and give the trials back.

        Raises:
            HubUnavailableError: No hub answered at start.
            SpecError: The trainer cannot run any trial.
            LogResetError: The hub serves another log now; the trials of the old log were ended.
        """
        with Link(self._bus.endpoint) as link:
            link.wait_connected(self._bus.connect_s)
            await self._trainer.start()
            logger.info(
                "worker %s on %s: %d slots, study %r",
                self.name,
                link.endpoint,
                self._settings.slots,
                self._study,
            )
            with (
                subscribe(
                    events.TrialAssigned,
                    events.TrainerLost,
                    study=self._study or None,
                    link=link,
                ) as subscriber,
                Publisher(link=link) as publisher,
            ):
                subscriber.wait_ready(self._bus.connect_s)
                reader = asyncio.create_task(self._read_events(subscriber))
                try:
                    while not stop.is_set():
                        await self._run_session(link, publisher, reader, stop)
                finally:
                    reader.cancel()
                    await asyncio.wait([reader])
                    await self._trainer.close()

    async def _run_session(
        self, link: Link, publisher: Publisher, reader: asyncio.Task[None], stop: asyncio.Event
    ) -> None:
        """Run the slots until `stop` is set or the hub declares the presence session lost."""
        presence = Presence(
            link=link,
            kind="worker",
            name=self.name,
            ttl_s=self._settings.ttl_s,
            study=self._study,
            info={
                "study": self._study,
                "host": socket.gethostname(),
                "slots": str(self._settings.slots),
                **{name: f"{amount:g}" for name, amount in self._resources.items()},
            },
        )
        tasks = [
            asyncio.create_task(stop.wait()),
            *(
                asyncio.create_task(self._run_slot(slot, presence, publisher))
                for slot in range(self._settings.slots)
            ),
        ]
        done: set[asyncio.Task[Any]] = set()
        try:
            while not (done or presence.lost):
                done, _ = await asyncio.wait(
                    {reader, *tasks}, timeout=_POLL_S, return_when=asyncio.FIRST_COMPLETED
                )
            if not done:
                logger.warning("the hub declared this worker lost; its trials are assigned again")
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            presence.close()
        for task in done:
            task.result()

    async def _run_slot(self, slot: int, presence: Presence, publisher: Publisher) -> None:
        # A trial of a process that the hub does not know would never be handed out again.
        while not presence.is_registered:  # noqa: ASYNC110 - set by the link's thread
            await asyncio.sleep(_REGISTER_POLL_S)
        while True:
            request = uuid.uuid4().hex
            assignment = asyncio.get_running_loop().create_future()
            self._assignments[request] = assignment
            try:
                publisher.publish(
                    events.TrialRequested(
                        study=self._study,
                        request=request,
                        session=presence.session,
                        worker=self.name,
                        slot=slot,
                        resources=self._resources,
                    )
                )
                trial = await assignment
            except asyncio.CancelledError:
                # Also if the trial is assigned at this moment: another worker gets the trial then.
                publisher.publish(events.RequestWithdrawn(study=self._study, request=request))
                raise
            finally:
                del self._assignments[request]
            publisher.publish(await self._run_trial(trial, publisher))

    async def _run_trial(
        self, trial: events.TrialAssigned, publisher: Publisher
    ) -> events.TrialFinished:
        """Run a trial and return `trial_finished`, which the trainer has usually sent before."""
        log = paths.locate_trial_log(
            self._bus.logs / "trials", trial.study, trial.trial, trial.attempt
        )
        logger.info("%s", _describe(trial))
        env = make_environment(trial, resolve(self._bus.endpoint))
        if self._gpus:
            env[gpus.VARIABLE] = self._gpus[trial.slot]
        training = asyncio.create_task(self._trainer.run(trial, env, log))
        key = (trial.study, trial.trial)
        self._trainings[key] = (trial.attempt, training)
        try:
            await asyncio.wait([training])
            if not training.cancelled() and not training.exception():
                # A scheduler that ends every process of a job signals the training a moment before
                # the worker: such an end is no failure, and the worker is cancelled in this pause.
                is_terminated = training.result().code in exit_codes.TERMINATED
                await asyncio.sleep(_STOP_NOTICE_S if is_terminated else 0)
        except asyncio.CancelledError:
            training.cancel()
            await asyncio.wait([training])
            error = f"worker {self.name} stopped and ended this attempt"
            publisher.publish(_build_finished(trial, "preempted", error=error))
            raise
        finally:
            if self._trainings.get(key, (None, None))[1] is training:
                del self._trainings[key]
        return self._conclude(trial, training, log)

    def _conclude(
        self, trial: events.TrialAssigned, training: asyncio.Task[TrainingExit], log: Path
    ) -> events.TrialFinished:
        """Return the `trial_finished` of a training that has ended."""
        if training.cancelled():
            logger.info("%s was abandoned", _describe(trial))
            return _build_finished(trial, "preempted", error="this attempt was abandoned")
        failure = training.exception()
        if isinstance(failure, OSError | ValueError):
            logger.warning("%s: %s", _describe(trial), failure)
            error = f"the trainer could not be started: {failure} (log {log}, worker {self.name})"
            return _build_finished(trial, "failed", error=error)
        training_exit = training.result()
        logger.info("%s: exit code %d", _describe(trial), training_exit.code)
        return _build_finished(
            trial,
            "failed" if training_exit.code else "complete",
            error=training_exit.error,
            exit_code=training_exit.code,
        )

    async def _read_events(self, subscriber: Subscriber[events.Event]) -> None:
        async for event in subscriber:
            match event:
                case events.TrialAssigned():
                    assignment = self._assignments.get(event.request)
                    if assignment is not None and not assignment.done():
                        assignment.set_result(event)
                    self._end_attempts(event.study, event.trial, before=event.attempt)
                case events.TrainerLost(trial=int(trial), attempt=int(attempt)):
                    # The training hangs and would occupy the slot for ever.
                    self._end_attempts(event.study, trial, before=attempt + 1)
                case _:
                    continue

    def _end_attempts(self, study: str, trial: int, *, before: int) -> None:
        """End the training of a trial if the training belongs to an earlier attempt."""
        attempt, training = self._trainings.get((study, trial), (before, None))
        if training is not None and attempt < before:
            training.cancel()


def _build_finished(
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


def _describe(trial: events.TrialAssigned) -> str:
    return f"trial {trial.trial} of {trial.study!r}, attempt {trial.attempt}"
