"""Run the optimizer as a process."""

from __future__ import annotations

import logging
import math
import time

import optuna

from trialbus.errors import TrialbusError
from trialbus_services.config.secrets import mask_secrets
from trialbus_services.config.settings import BusSettings, OptimizerSettings, StorageSettings
from trialbus_services.optimizer.allowed_modules import AllowedModules
from trialbus_services.optimizer.service import Optimizer
from trialbus_services.optimizer.storage import make_folder, open_storage
from trialbus_services.optimizer.storage_writer.writer import StorageLostError
from trialbus_services.process import exit_codes
from trialbus_services.process.signals import install_stop_event

logger = logging.getLogger(__name__)

_MIN_SERVED_S = 5.0  # a storage that is lost sooner than that would be lost again and again


def run(bus: BusSettings, storage: StorageSettings, settings: OptimizerSettings) -> int:
    """Serve until SIGTERM or SIGINT and return the exit code."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    allowed = AllowedModules(settings.allowed_modules)
    stop = install_stop_event()
    lost_at = -math.inf
    while True:
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
        try:
            optimizer.run(stop.is_set)
        except StorageLostError as error:
            before, lost_at = lost_at, time.monotonic()
            if lost_at - before < _MIN_SERVED_S:
                raise TrialbusError(f"the storage was lost again: {error}") from None
            logger.warning("%s; the optimizer begins again with an empty storage", error)
            make_folder(storage.url)
        else:
            return exit_codes.DONE
