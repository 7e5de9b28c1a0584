"""Run a worker as a process."""

from __future__ import annotations

import asyncio
import signal

from trialbus_services.settings import Bus, Trainer, Worker


def run(bus: Bus, worker: Worker, trainer: Trainer, *, study: str) -> int:
    """Serve until SIGTERM or SIGINT and return the exit code."""
    raise AssertionError
