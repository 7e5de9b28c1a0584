"""Fork server of the sampler processes: has Optuna imported, so that a process begins at once.

Forking the optimizer itself would copy locks that its threads hold. Imports no Optuna here, so that
the server starts beside the imports of the optimizer.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.forkserver

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["trialbus_services.optimizer.sampling.sampler_process"])


def start_fork_server() -> None:
    """Start the server, without waiting for its imports."""
    multiprocessing.forkserver.ensure_running()
