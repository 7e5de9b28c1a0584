"""Run a worker as a process."""

from __future__ import annotations

import asyncio
import json
import signal
import tempfile
from collections.abc import Mapping
from typing import Any

import msgspec

from trialbus.callbacks.factory import ALLOWED_VARIABLE, CALLBACKS_VARIABLE
from trialbus.errors import SpecError
from trialbus.protocol.security import locate_keys
from trialbus.study.allowed_modules import normalize_modules
from trialbus_services.config.settings import (
    WORKER_MODULES_KEY,
    BusSettings,
    TrainerSettings,
    WorkerSettings,
)
from trialbus_services.process import exit_codes
from trialbus_services.worker.service import Worker
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
    """Run trials until SIGTERM or SIGINT and return the exit code.

    Args:
        bus: Settings of the bus.
        worker: Settings of the worker.
        trainer: Settings of the program or function that runs a trial.
        study: Study whose trials are run.
        callbacks: Section `callbacks` for `trialbus.callbacks.CallbackFactory` in the trainings.
    """
    built_trainer = _build_trainer(bus, worker, trainer, callbacks or {})
    asyncio.run(_run_until_signal(Worker(bus, worker, built_trainer, study=study)))
    return exit_codes.DONE


def check_function(
    bus: BusSettings,
    worker: WorkerSettings,
    trainer: TrainerSettings,
    callbacks: Mapping[str, Any],
) -> None:
    """Import the function of a trainer, if it has one, as a worker does, and leave no file.

    Args:
        bus: Settings of the bus.
        worker: Settings of the worker.
        trainer: Settings of the program or function that runs a trial.
        callbacks: Section `callbacks` of the config.

    Raises:
        SpecError: The function cannot be imported.
    """
    if trainer.function is None:
        return

    async def start() -> None:
        await built_trainer.start()
        await built_trainer.close()

    with tempfile.TemporaryDirectory() as folder:
        built_trainer = _build_trainer(
            msgspec.structs.replace(bus, dir=folder), worker, trainer, callbacks
        )
        try:
            asyncio.run(start())
        except SpecError as error:
            # The log that the message names goes with the folder.
            raise SpecError(error.key, error.problem.partition(f" (see {folder}")[0]) from None


def _build_trainer(
    bus: BusSettings, worker: WorkerSettings, trainer: TrainerSettings, callbacks: Mapping[str, Any]
) -> Trainer:
    # With keys of the config, trainings get another one, which allows less than the worker's. Those
    # of the environment are found from the trainings' folder, too.
    keys = bus.keys.environment(bus.keys.get_name("trainer")) if bus.keys else {}
    allowed = normalize_modules(WORKER_MODULES_KEY, worker.allowed_modules)
    env = {
        **locate_keys(),
        **trainer.env,
        CALLBACKS_VARIABLE: json.dumps(callbacks),
        ALLOWED_VARIABLE: ",".join(allowed),
        **keys,
    }
    if trainer.function is not None:
        return WarmTrainer(
            trainer.function,
            env=env,
            cwd=trainer.cwd,
            log=bus.logs / "function.log",
            grace_s=worker.grace_s,
        )
    return CommandTrainer(
        command=trainer.argv,
        runs=bus.runs,
        params_as=trainer.params_as,
        switches=trainer.switches,
        metrics=trainer.metric_sources,
        env=env,
        cwd=trainer.cwd,
        grace_s=worker.grace_s,
    )


async def _run_until_signal(worker: Worker) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await worker.run(stop)
