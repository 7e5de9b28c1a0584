"""Ranks: in distributed training one process speaks for the trial, and all of them hear."""

from __future__ import annotations

import os
import sys
from typing import Any, TypeVar, cast

from trialbus.errors import TrialbusError

_T = TypeVar("_T")


class Ranks:
    """The processes that train together, as `torch.distributed` knows them when this is made.

    Nothing is imported for it: where the script has not set up a process group, it trains alone.

    Attributes:
        rank: This process's, 0 where it trains alone.

    Raises:
        TrialbusError: `torchrun` started several processes, and there is no process group yet.

    Source:
        `torch.distributed`.
    """

    def __init__(self) -> None:
        torch_distributed = cast(Any, sys.modules.get("torch.distributed"))
        several = bool(
            torch_distributed
            and torch_distributed.is_available()
            and torch_distributed.is_initialized()
            and torch_distributed.get_world_size() > 1
        )
        self.rank: int = torch_distributed.get_rank() if several else 0
        self._group: Any = torch_distributed if several else None
        world = os.environ.get("WORLD_SIZE", "1") if "TORCHELASTIC_RUN_ID" in os.environ else "1"
        if not several and world != "1":
            raise TrialbusError(
                f"this is one of {world} processes of torchrun without a process group: call "
                "torch.distributed.init_process_group() before trialbus.attach()"
            )

    def share(self, value: _T) -> _T:
        """Return what rank 0 gave, in every rank; all of them have to call this alike."""
        if self._group is None:
            return value
        values = [value]
        self._group.broadcast_object_list(values, src=0)
        return values[0]
