"""Launchers: which process of a distributed training this is, by the variables of its launcher."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass

#: Environment variable of a training, set by the worker: launchers' variables that the worker has.
OUTER_RANKS_VARIABLE = "TRIALBUS_OUTER_RANKS"


@dataclass(frozen=True, kw_only=True)
class Launcher:
    """The environment variables by which a launcher tells a process its rank."""

    name: str
    rank: str
    """Variable with the rank of the process."""
    size: str
    """Variable with the number of processes."""
    node: str = ""
    """Variable with the number of the node, where `rank` counts the processes of each node."""
    start: tuple[str, ...] = ()
    """Variables that tell one start of the launcher from another."""
    is_framework: bool = True
    """Whether all processes are always one training; a batch system may start one trainer each."""

    @property
    def variables(self) -> tuple[str, ...]:
        """Names of all variables of the launcher."""
        return tuple(name for name in (self.rank, self.size, self.node, *self.start) if name)


#: The first launcher whose variables are set counts.
LAUNCHERS = (
    Launcher(
        name="torchrun",
        rank="RANK",
        size="WORLD_SIZE",
        start=("MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID"),
    ),
    Launcher(
        name="Lightning",
        rank="LOCAL_RANK",
        size="WORLD_SIZE",
        node="NODE_RANK",
        start=("MASTER_ADDR", "MASTER_PORT"),
    ),
    Launcher(name="Horovod", rank="HOROVOD_RANK", size="HOROVOD_SIZE", is_framework=False),
    Launcher(
        name="Open MPI",
        rank="OMPI_COMM_WORLD_RANK",
        size="OMPI_COMM_WORLD_SIZE",
        start=("PMIX_NAMESPACE",),
        is_framework=False,
    ),
    Launcher(
        name="MVAPICH",
        rank="MV2_COMM_WORLD_RANK",
        size="MV2_COMM_WORLD_SIZE",
        is_framework=False,
    ),
    Launcher(
        name="MPICH", rank="PMI_RANK", size="PMI_SIZE", start=("PMI_PORT",), is_framework=False
    ),
    Launcher(
        name="jsrun", rank="JSM_NAMESPACE_RANK", size="JSM_NAMESPACE_SIZE", is_framework=False
    ),
    Launcher(
        name="Flux",
        rank="FLUX_TASK_RANK",
        size="FLUX_JOB_SIZE",
        start=("FLUX_JOB_ID",),
        is_framework=False,
    ),
    Launcher(
        name="Slurm",
        rank="SLURM_PROCID",
        size="SLURM_NTASKS",
        start=("SLURM_JOB_ID", "SLURM_STEP_ID"),
        is_framework=False,
    ),
)


@dataclass(frozen=True)
class LaunchedRank:
    """The place of a process among the processes that a launcher started."""

    rank: int
    size: int
    launcher: str


def find_launched_rank(*, is_given: bool) -> LaunchedRank | None:
    """Return the rank of this process by the variables of its launcher; None if it trains alone.

    Variables count only if they say that there are several processes.

    Args:
        is_given: Whether a worker gave the trial to this process. Then the variables that the
            worker itself had do not count: they are about the workers, not about the training.
            Otherwise the variables of batch systems and of MPI do not count, whose processes may
            be a trainer each.
    """
    outer: Mapping[str, str] = _parse_outer_ranks() if is_given else {}
    for launcher in LAUNCHERS:
        if not (is_given or launcher.is_framework):
            continue
        if outer and all(os.environ.get(name) == outer.get(name) for name in launcher.variables):
            continue
        rank, size = _read_number(launcher.rank), _read_number(launcher.size) or 1
        node = (_read_number(launcher.node) or 0) if launcher.node else 0
        if rank is None and node:
            rank = 0
        if rank is not None and size > 1:
            rank += node * (_read_number("LOCAL_WORLD_SIZE") or 1)
            return LaunchedRank(rank, size, launcher.name)
    return None


def describe_outer_ranks() -> str:
    """Return the variables of launchers in this process, for the trainings that it starts."""
    names = {name for launcher in LAUNCHERS for name in launcher.variables}
    return json.dumps({name: os.environ[name] for name in sorted(names & os.environ.keys())})


def _parse_outer_ranks() -> Mapping[str, str]:
    try:
        return dict(json.loads(os.environ.get(OUTER_RANKS_VARIABLE) or "{}"))
    except ValueError:
        return {}


def _read_number(name: str) -> int | None:
    text = os.environ.get(name, "")
    return int(text) if text.isdecimal() else None
