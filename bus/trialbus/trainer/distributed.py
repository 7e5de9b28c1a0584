"""Ranks: in distributed training, rank 0 alone speaks with the bus and shares the answers."""

from __future__ import annotations

import os
import sys
from typing import Any, TypeVar, cast

from trialbus.errors import TrialbusError

_T = TypeVar("_T")


class Ranks:
    """The processes of a distributed training in `torch.distributed`, or the only process.

    torch is not imported here: a script that has set up a process group has imported torch.

    Attributes:
        rank: Rank of this process, 0 if it trains alone.

    Raises:
        TrialbusError: `torchrun` started several processes, and no process group exists yet.

    Source:
        `torch.distributed`.
    """

    def __init__(self) -> None:
        torch_distributed = cast(Any, sys.modules.get("torch.distributed"))
        is_distributed = bool(
            torch_distributed
            and torch_distributed.is_available()
            and torch_distributed.is_initialized()
            and torch_distributed.get_world_size() > 1
        )
        self.rank: int = torch_distributed.get_rank() if is_distributed else 0
        self._group: Any = torch_distributed if is_distributed else None
        world = os.environ.get("WORLD_SIZE", "1") if "TORCHELASTIC_RUN_ID" in os.environ else "1"
        if not is_distributed and world != "1":
            raise TrialbusError(
                f"this is one of {world} processes of torchrun without a process group: call "
                "torch.distributed.init_process_group() before trialbus.attach()"
            )

    def share(self, value: _T) -> _T:
        """Return the value of rank 0 in every rank; every rank must make the same calls."""
        if self._group is None:
            return value
        values = [value]
        self._group.broadcast_object_list(values, src=0)
        return values[0]
