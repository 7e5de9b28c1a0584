"""GPUs of a worker's slots: each slot has GPUs to itself, or a share of one GPU."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import Literal, TypeAlias

from trialbus.errors import SpecError

#: How many, which ones, those that are here, or no business of the worker's.
Gpus: TypeAlias = int | list[int | str] | Literal["auto"] | None

#: What CUDA heeds.
VARIABLE = "CUDA_VISIBLE_DEVICES"
_LOOK_S = 20.0


def check(gpus: Gpus, per_trial: float) -> None:
    """Check the GPU settings of a worker, as far as that is possible without looking for GPUs.

    Raises:
        ValueError: A number is out of range.
    """
    if isinstance(gpus, int) and gpus < 0:
        raise ValueError(f"gpus {gpus} is below 0 (expected a number, a list of ids, auto or null)")
    if not per_trial > 0 or (per_trial > 1 and per_trial != int(per_trial)):
        raise ValueError(
            f"gpus_per_trial {per_trial:g} is neither a share of one nor a number of them "
            "(expected for example 0.5, 1 or 2)"
        )


def devices(gpus: Gpus, per_trial: float, slots: int) -> tuple[str, ...]:
    """Return `CUDA_VISIBLE_DEVICES` of each slot; empty where the GPUs are left alone.

    Args:
        gpus: See `Gpus`. `auto` on a machine without any leaves them alone.
        per_trial: GPUs of one trial: a share of one, or a whole number of them.
        slots: Trials at the same time.

    Raises:
        SpecError: There are not enough for so many slots.

    Example:
        >>> devices(2, 0.5, 4), devices([4, 5, 6, 7], 2, 2)
        (('0', '0', '1', '1'), ('4,5', '6,7'))
    """
    ids = [str(gpu) for gpu in gpus] if isinstance(gpus, list) else _ids(gpus)
    if ids is None or (gpus == "auto" and not ids):
        return ()
    room = capacity(len(ids), per_trial)
    if slots > room:
        raise SpecError(
            "worker.slots",
            f"{slots} trials at once with worker.gpus_per_trial={per_trial:g} need more than the "
            f"{len(ids)} GPUs of worker.gpus={gpus!r} (expected at most {room})",
        )
    if per_trial <= 1:
        share = capacity(1, per_trial)
        return tuple(ids[slot // share] for slot in range(slots))
    each = int(per_trial)
    return tuple(",".join(ids[slot * each : (slot + 1) * each]) for slot in range(slots))


def capacity(n_gpus: int, per_trial: float) -> int:
    """Return how many trials so many GPUs have room for."""
    # 1 / 0.1 is a little less than 10 in floating point.
    return int(n_gpus // per_trial) if per_trial >= 1 else n_gpus * int(1 / per_trial + 1e-9)


def present() -> list[str]:
    """Return the ids of the GPUs that this process may use."""
    visible = os.environ.get(VARIABLE)
    if visible is not None:
        return [gpu.strip() for gpu in visible.split(",") if gpu.strip()]
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    try:
        listed = subprocess.run(
            [program, "--query-gpu=index", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=_LOOK_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    return listed.stdout.split() if listed.returncode == 0 else []


def _ids(gpus: int | str | None) -> list[str] | None:
    if gpus is None:
        return None
    return present() if isinstance(gpus, str) else [str(gpu) for gpu in range(gpus)]
