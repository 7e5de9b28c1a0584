"""The worker: slots that request trials, run trainings and publish the end of each trial."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import socket
import time
import uuid
from typing import Any

from trialbus.client.link import Link
from trialbus.client.presence import Presence
from trialbus.client.publisher import Publisher
from trialbus.client.subscriber import Subscriber, subscribe
from trialbus.messages import events
from trialbus.messages.hand_outs import HandOuts
from trialbus.protocol.endpoint import resolve
from trialbus.trainer.assignment import make_environment
from trialbus.trainer.run_directory import RUN_DIRECTORY_VARIABLE
from trialbus_services.config.settings import BusSettings, WorkerSettings
from trialbus_services.process import gpus, paths
from trialbus_services.worker.attempt import Attempt
from trialbus_services.worker.memory import MemoryLimit, OutOfMemoryKills
from trialbus_services.worker.resources import measure_slot
from trialbus_services.worker.trainers import Trainer
from trialbus_services.worker.worker_end import WorkerEnd

logger = logging.getLogger(__name__)

_POLL_S = 0.5
_REGISTER_POLL_S = 0.02
_STOP_NOTICE_S = 1.0
_SEND_POLL_S = 0.02
_SEND_NOTE_S = 2.0
_LAST_SEND_S = 5.0  # of a worker that stops: a hub that is away may stay away


class Worker:
    """Runs the trials of a study in slots.

    Args:
        bus: Settings of the bus: address of the hub, and folder of the logs of trials.
        settings: Settings of the worker.
        trainer: Runs the training of each trial.
        study: Study whose trials are run; empty for any study.

    Raises:
        SpecError: There are too few GPUs for the slots, or no limit of memory can be applied here.

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
        self._assignments: dict[str, asyncio.Future[events.TrialAssigned | None]] = {}  # by request
        self._attempts: dict[tuple[str, int], Attempt] = {}
        self._end = WorkerEnd(settings, study)
        self._hand_outs = HandOuts()
        self._memory = MemoryLimit(settings.memory_gb)
        self._kernel_kills = OutOfMemoryKills()
        self._offset = 0  # of the log, up to which events were read

    async def run(self, stop: asyncio.Event) -> None:
        """Run trials until `stop` is set, then end the trainings and give the trials back.

        The worker sets `stop` itself when `worker.until`, `max_trials` or `idle_s` end it.

        Raises:
            HubUnavailableError: No hub answered at start.
            SpecError: The trainer cannot run any trial.
            LogResetError: The hub serves another log now; the trials of the old log were ended.
        """
        with Link(self._bus.endpoint) as link:
            link.wait_connected(self._bus.connect_s)
            await self._trainer.start()
            logger.info(
                "%s on %s: %d slots, study %r",
                self.name,
                link.endpoint,
                self._settings.slots,
                self._study,
            )
            with (
                subscribe(
                    events.TrialAssigned,
                    events.RequestRefused,
                    events.TrialFinished,
                    events.TrialClosed,
                    events.TrainerLost,
                    events.Prune,
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
        info = {
            "study": self._study,
            "host": socket.gethostname(),
            "slots": str(self._settings.slots),
            **{name: f"{amount:g}" for name, amount in self._resources.items()},
        }
        presence = Presence(
            link=link,
            kind="worker",
            name=self.name,
            ttl_s=self._settings.ttl_s,
            study=self._study,
            info=info,
        )
        slots = {
            asyncio.create_task(self._run_slot(slot, link, presence, publisher))
            for slot in range(self._settings.slots)
        }
        tasks = {asyncio.create_task(stop.wait()), *slots}
        done: set[asyncio.Task[Any]] = set()
        waits = ""
        try:
            while not (done or presence.lost):
                slots = {slot for slot in slots if not slot.done() or slot.exception()}
                if self._end.is_due(n_slots=len(slots), is_busy=bool(self._attempts)):
                    stop.set()
                done, _ = await asyncio.wait(
                    {reader, *tasks}, timeout=_POLL_S, return_when=asyncio.FIRST_COMPLETED
                )
                tasks -= {slot for slot in done & slots if not slot.exception()}
                done &= {reader, *tasks}
                self._kernel_kills.sample()
                if waits != (waits := self._describe_waits()):
                    presence.inform({**info, "waits": waits})
            if not done:
                logger.warning("the hub declared this worker lost; its trials are assigned again")
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            presence.close()
        for task in done:
            task.result()

    async def _run_slot(
        self, slot: int, link: Link, presence: Presence, publisher: Publisher
    ) -> None:
        # A trial of a process that the hub does not know would never be handed out again.
        while not presence.is_registered:  # noqa: ASYNC110 - set by the link's thread
            await asyncio.sleep(_REGISTER_POLL_S)
        while self._end.admit_request():
            request = uuid.uuid4().hex
            assignment: asyncio.Future[events.TrialAssigned | None]
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
                        ends_with_study=self._end.is_with_study,
                    )
                )
                trial = await assignment
            except asyncio.CancelledError:
                self._end.withdraw_request()
                # Also if the trial is assigned at this moment: another worker gets the trial then.
                publisher.publish(events.RequestWithdrawn(study=self._study, request=request))
                raise
            finally:
                del self._assignments[request]
            if trial is None:  # the study has ended
                return
            await self._run_trial(trial, link, publisher)

    async def _run_trial(
        self, trial: events.TrialAssigned, link: Link, publisher: Publisher
    ) -> None:
        """Run a trial and publish `trial_finished`, which the trainer has usually sent before."""
        log = paths.locate_trial_log(
            self._bus.logs / "trials", trial.study, trial.trial, trial.attempt
        )
        env = make_environment(trial, resolve(self._bus.endpoint))
        run_directory = paths.locate_run_directory(self._bus.runs, trial.study, trial.trial)
        env[RUN_DIRECTORY_VARIABLE] = str(run_directory)
        if self._gpus:
            env[gpus.VARIABLE] = self._gpus[trial.slot]
        attempt = Attempt(
            trial,
            link=link,
            log=log,
            memory=self._memory,
            exit_grace_s=self._settings.exit_grace_s,
            since=self._offset,
        )
        logger.info("%s", attempt)
        key = (trial.study, trial.trial)
        self._attempts[key] = attempt
        kernel_killed = False
        try:
            await attempt.run(self._trainer, env, publisher.publish)
            kernel_killed = self._kernel_kills.has_grown
            # A scheduler that ends every process of a job signals the training a moment before the
            # worker: such an end is no failure, and the worker is cancelled in this pause.
            await asyncio.sleep(_STOP_NOTICE_S if attempt.is_told_to_end else 0)
            await self._send_left(attempt)
        except asyncio.CancelledError:
            attempt.hand_back(f"worker {self.name} stopped and ended this attempt")
            await self._send_left(attempt, _LAST_SEND_S)
            raise
        finally:
            if self._attempts.get(key) is attempt:
                del self._attempts[key]
            try:
                finished = attempt.conclude(kernel_killed=kernel_killed)
            finally:
                attempt.handover.close()
            if attempt.end_reason != "lingering":  # the trainer has published the end
                logger.info("%s: %s", attempt, _describe_end(finished))
                publisher.publish(finished)

    async def _send_left(self, attempt: Attempt, timeout_s: float = math.inf) -> None:
        """Wait until the hub has what the training left unsent, which the verdict must follow."""
        begun = time.monotonic()
        while not attempt.handover.send_left() and time.monotonic() < begun + timeout_s:
            if time.monotonic() > begun + _SEND_NOTE_S:
                n_left = attempt.handover.n_left
                attempt.wait_for(f"the hub, to send {n_left} events that {attempt} left unsent")
            await asyncio.sleep(_SEND_POLL_S)

    def _describe_waits(self) -> str:
        """Return what the slots wait for whose trials have ended; empty if no slot waits."""
        return "; ".join(
            f"slot {attempt.assigned.slot} waits for {attempt.waits_for}"
            for attempt in self._attempts.values()
            if attempt.waits_for
        )

    async def _read_events(self, subscriber: Subscriber[events.Event]) -> None:
        async for event in subscriber:
            self._offset = subscriber.offset or 0
            match event:
                case events.RequestRefused():
                    self._answer_slot(event.request, None)
                case events.TrialAssigned():
                    if not self._hand_outs.add(event):
                        continue  # the request gets another trial
                    self._answer_slot(event.request, event)
                    self._end_attempts(event.study, event.trial, before=event.attempt)
                case events.TrialFinished() | events.TrialClosed():
                    attempt = self._attempts.get((event.study, event.trial))
                    if attempt is not None and attempt.assigned.attempt == event.attempt:
                        attempt.note_finish()
                case events.Prune():
                    attempt = self._attempts.get((event.study, event.trial))
                    if attempt is not None and attempt.assigned.attempt == event.attempt:
                        attempt.prune(event.reason)
                case events.TrainerLost(trial=int(trial), attempt=int(attempt)):
                    # The training hangs and would occupy the slot for ever.
                    self._end_attempts(event.study, trial, before=attempt + 1)
                case _:
                    continue

    def _answer_slot(self, request: str, trial: events.TrialAssigned | None) -> None:
        """Give a slot of this worker the answer to a request; None is a refusal."""
        assignment = self._assignments.get(request)
        if assignment is not None and not assignment.done():
            assignment.set_result(trial)

    def _end_attempts(self, study: str, trial: int, *, before: int) -> None:
        """End the training of a trial if the training belongs to an earlier attempt."""
        attempt = self._attempts.get((study, trial))
        if attempt is not None and attempt.assigned.attempt < before:
            attempt.end("abandoned", "this attempt was abandoned")


def _describe_end(finished: events.TrialFinished) -> str:
    code = "" if finished.exit_code is None else f", exit code {finished.exit_code}"
    return f"{finished.cause or finished.state}{code}"
