"""Run the optimizer as a process."""

from __future__ import annotations

import logging

import optuna

from trialbus_services.config.secrets import mask_secrets
from trialbus_services.config.settings import BusSettings, OptimizerSettings, StorageSettings
from trialbus_services.optimizer.allowed_modules import AllowedModules
from trialbus_services.optimizer.service import Optimizer
from trialbus_services.optimizer.storage import open_storage
from trialbus_services.process import exit_codes
from trialbus_services.process.signals import install_stop_event

logger = logging.getLogger(__name__)


def run(bus: BusSettings, storage: StorageSettings, settings: OptimizerSettings) -> int:
    """Serve until SIGTERM or SIGINT and return the exit code."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    allowed = AllowedModules(settings.allowed_modules)
    stop = install_stop_event()
    optimizer = Optimizer(
        bus.endpoint,
        open_storage(storage.url),
        storage_url=storage.url,
        connect_s=bus.connect_s,
        ahead=settings.ahead,
        record_every_s=settings.record_every_s,
        max_points=settings.max_points,
        allowed=allowed,
    )
    logger.info("serving on %s, recording into %s", bus.endpoint, mask_secrets(storage.url))
    optimizer.run(stop.is_set)
    return exit_codes.DONE
