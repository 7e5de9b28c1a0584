"""Resources of a worker's slots: an equal share of the machine for each slot."""

from __future__ import annotations

import os
import sys


def measure_slot(slots: int, gpus: float) -> dict[str, float]:
    """Return the resources of a slot: `gpus`, `cpus`, and `memory_gb` if the memory is known.

    Only CPUs that this process may use count; a container's limit of memory is ignored.

    Args:
        slots: Number of slots that share this machine.
        gpus: GPUs of each slot; 0 where GPUs are left alone.
    """
    cpus = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    resources = {"gpus": gpus, "cpus": round(cpus / slots, 2)}
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):  # not known on this system
        return resources
    return {**resources, "memory_gb": round(memory / slots / 1e9, 1)}
