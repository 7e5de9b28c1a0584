"""GPUs of a worker's slots: whole GPUs for each slot, or a share of a GPU."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import Literal, TypeAlias

from trialbus.errors import SpecError

#: A number of GPUs, a list of ids, `auto` for all of this machine, or None to leave GPUs alone.
Gpus: TypeAlias = int | list[int | str] | Literal["auto"] | None

#: Environment variable that limits CUDA to some GPUs.
VARIABLE = "CUDA_VISIBLE_DEVICES"
_QUERY_TIMEOUT_S = 20.0


def check_settings(gpus: Gpus, per_trial: float) -> None:
    """Check the GPU settings of a worker without a search for the GPUs of this machine.

    Raises:
        ValueError: A number is out of range.
    """
    if isinstance(gpus, int) and gpus < 0:
        raise ValueError(f"gpus {gpus} is below 0 (expected a number, a list of ids, auto or null)")
    if not per_trial > 0 or (per_trial > 1 and per_trial != int(per_trial)):
        raise ValueError(
            f"gpus_per_trial {per_trial:g} is neither a share of a GPU nor a whole number of GPUs "
            "(expected for example 0.5, 1 or 2)"
        )


def assign_gpus(gpus: Gpus, per_trial: float, slots: int) -> tuple[str, ...]:
    """Return the value of `CUDA_VISIBLE_DEVICES` for each slot; empty to leave GPUs alone.

    Args:
        gpus: See `Gpus`. `auto` on a machine without GPUs is like None.
        per_trial: GPUs of a trial: a share of a GPU, or a whole number of GPUs.
        slots: Number of trials that run at the same time.

    Raises:
        SpecError: There are too few GPUs for a trial, or for so many slots.

    Example:
        >>> assign_gpus(2, 0.5, 4), assign_gpus([4, 5, 6, 7], 2, 2)
        (('0', '0', '1', '1'), ('4,5', '6,7'))
    """
    ids = _list_ids(gpus)
    if ids is None or (gpus == "auto" and not ids):
        return ()
    if per_trial > len(ids):
        raise SpecError(
            "worker.gpus_per_trial",
            f"{per_trial:g} is more than the number of GPUs of this worker, {len(ids)} by "
            f"worker.gpus={gpus!r} (expected at most {len(ids)}, or more in worker.gpus)",
        )
    capacity = count_slots(len(ids), per_trial)
    if slots > capacity:
        raise SpecError(
            "worker.slots",
            f"{slots} trials at once with worker.gpus_per_trial={per_trial:g} need more than the "
            f"{len(ids)} GPUs of worker.gpus={gpus!r} (expected at most {capacity})",
        )
    if per_trial <= 1:
        slots_per_gpu = count_slots(1, per_trial)
        return tuple(ids[slot // slots_per_gpu] for slot in range(slots))
    n = int(per_trial)
    return tuple(",".join(ids[slot * n : (slot + 1) * n]) for slot in range(slots))


def count_slots(n_gpus: int, per_trial: float) -> int:
    """Return the number of trials that can run at the same time on some GPUs."""
    # 1 / 0.1 is a little less than 10 in floating point.
    return int(n_gpus // per_trial) if per_trial >= 1 else n_gpus * int(1 / per_trial + 1e-9)


def list_visible_gpus() -> list[str]:
    """Return the ids of the GPUs that this process may use."""
    visible = os.environ.get(VARIABLE)
    if visible is not None:
        return [gpu.strip() for gpu in visible.split(",") if gpu.strip()]
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    try:
        query = subprocess.run(
            [program, "--query-gpu=index", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=_QUERY_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    return query.stdout.split() if query.returncode == 0 else []


def _list_ids(gpus: Gpus) -> list[str] | None:
    match gpus:
        case None:
            return None
        case "auto":
            return list_visible_gpus()
        case list():
            return list(map(str, gpus))
        case _:
            return list(map(str, range(gpus)))
