"""Run a worker as a process."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Mapping
from typing import Any

from trialbus.callbacks.factory import CALLBACKS_VARIABLE
from trialbus_services.config.settings import BusSettings, TrainerSettings, WorkerSettings
from trialbus_services.process import exit_codes, gpus
from trialbus_services.worker import service
from trialbus_services.worker.config import WorkerConfig
from trialbus_services.worker.trainers import CommandTrainer, Trainer
from trialbus_services.worker.warm import WarmTrainer


def run(
    bus: BusSettings,
    worker: WorkerSettings,
    trainer: TrainerSettings,
    *,
    study: str,
    callbacks: Mapping[str, Any] | None = None,
) -> int:
    """Serve until SIGTERM or SIGINT and return the exit code.

    Args:
        bus: Where the hub is.
        worker: How to run trials.
        trainer: What to run.
        study: The study whose trials are run.
        callbacks: What `trialbus.callbacks.CallbackFactory` finds in the trainings.
    """
    config = WorkerConfig(
        endpoint=bus.endpoint,
        logs=bus.logs / "trials",
        study=study,
        name=worker.name or "",
        slots=worker.slots,
        devices=gpus.devices(worker.gpus, worker.gpus_per_trial, worker.slots),
        gpus_per_trial=worker.gpus_per_trial,
        ttl_s=worker.ttl_s,
        connect_s=bus.connect_s,
    )
    asyncio.run(_serve(config, _trainer(bus, worker, trainer, callbacks or {})))
    return exit_codes.DONE


def _trainer(
    bus: BusSettings, worker: WorkerSettings, trainer: TrainerSettings, callbacks: Mapping[str, Any]
) -> Trainer:
    # A trainer gets a key of its own, which allows less than the worker's.
    keys = bus.keys.environment(bus.keys.trainer) if bus.keys else {}
    env = {**trainer.env, CALLBACKS_VARIABLE: json.dumps(callbacks), **keys}
    if trainer.function is not None:
        return WarmTrainer(
            trainer.function,
            env=env,
            cwd=trainer.cwd,
            log=bus.logs / "function.log",
            grace_s=worker.grace_s,
        )
    return CommandTrainer(
        command=[*trainer.command, *trainer.arguments],
        runs=bus.runs,
        params_as=trainer.params_as,
        env=env,
        cwd=trainer.cwd,
        grace_s=worker.grace_s,
    )


async def _serve(config: WorkerConfig, trainer: Trainer) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await service.Worker(config, trainer).run(stop)
