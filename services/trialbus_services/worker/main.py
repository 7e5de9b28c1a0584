"""Run a worker as a process."""

from __future__ import annotations

import asyncio
import signal

from trialbus_services.settings import Bus, Trainer, Worker
from trialbus_services.worker import service


def run(bus: Bus, worker: Worker, trainer: Trainer, *, study: str) -> int:
    """Serve until SIGTERM or SIGINT and return the exit code."""
    config = service.WorkerConfig(
        endpoint=bus.endpoint,
        command=trainer.command,
        logs=bus.logs / "trials",
        study=study,
        name=worker.name or "",
        slots=worker.slots,
        # A trainer gets a key of its own, which allows less than the worker's.
        env={**trainer.env, **(bus.keys.environment(bus.keys.trainer) if bus.keys else {})},
        cwd=trainer.cwd,
        grace_s=worker.grace_s,
        ttl_s=worker.ttl_s,
        connect_s=bus.connect_s,
    )
    asyncio.run(_serve(config))
    return 0


async def _serve(config: service.WorkerConfig) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await service.Worker(config).run(stop)
