"""The resources of a worker's slots: an equal share of the machine."""

from __future__ import annotations

import os
import sys


def measure_slot(slots: int, gpus: float) -> dict[str, float]:
    """Return the resources of one slot: `gpus`, `cpus`, and `memory_gb` where the memory is known.

    CPUs are those that this process may use; limits of a container on memory are not seen.

    Args:
        slots: Number of slots that share this machine.
        gpus: GPUs of each slot; 0 where GPUs are left alone.
    """
    cpus = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    resources = {"gpus": gpus, "cpus": round(cpus / slots, 2)}
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):  # a system that does not tell
        return resources
    return {**resources, "memory_gb": round(memory / slots / 1e9, 1)}
