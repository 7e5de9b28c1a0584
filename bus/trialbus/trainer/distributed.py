"""Ranks: in distributed training, rank 0 alone speaks with the bus and shares the answers."""

from __future__ import annotations

import sys
from typing import Any, TypeVar, cast

from trialbus.errors import TrialbusError
from trialbus.trainer.launchers import find_launched_rank

_T = TypeVar("_T")


class Ranks:
    """The processes of a distributed training, or the only process.

    A process group of `torch.distributed` shares what rank 0 receives. Without a group the
    variables of the launcher say the rank, and a group that the training makes later is joined.
    torch is not imported here: a script that has set up a process group has imported torch.

    Args:
        is_given: Whether a worker gave the trial to this process, and so to every rank.

    Attributes:
        rank: Rank of this process, 0 if it trains alone.

    Raises:
        TrialbusError: A launcher started several processes, which do not know their trial, and no
            process group exists yet.

    Source:
        `torch.distributed`.
    """

    def __init__(self, *, is_given: bool = False) -> None:
        self._is_copy = self._is_listening = False
        self._is_given = is_given
        self._group: Any = _find_group()
        self._is_joining = self._group is None
        launched = find_launched_rank(is_given=is_given)
        self._is_launched = launched is not None
        if self._group is not None:
            self.rank: int = self._group.get_rank()
        else:
            self.rank = launched.rank if launched else 0
        if launched and self._group is None and not is_given:
            raise TrialbusError(
                f"this is rank {launched.rank} of {launched.size} processes of {launched.launcher} "
                "without a process group: call torch.distributed.init_process_group() before "
                "trialbus.attach()"
            )

    @property
    def is_grouped(self) -> bool:
        """Whether a process group shares what rank 0 receives."""
        return self._group is not None

    def share(self, value: _T) -> _T:
        """Return the value of rank 0 in every rank; every rank must make the same calls.

        Raises:
            TrialbusError: The process group was made after the ranks had attached one by one.
        """
        if self._is_joining:
            self._join_group()
        if self._group is None:
            return value
        values = [value]
        self._group.broadcast_object_list(values, src=0)
        return values[0]

    def leave(self) -> None:
        """Share nothing any more: a copy of the process has no place among the ranks."""
        self._group = None
        self._is_copy = True
        self._is_joining = self._is_joining and _find_group() is None

    def note_listening(self) -> None:
        """Note that another process speaks for the trial, so that this one cannot be rank 0."""
        self._is_listening = True

    def _join_group(self) -> None:
        """Join a process group that was made after this process attached."""
        group = _find_group()
        if group is None:
            return
        self._is_joining = False
        rank, size = group.get_rank(), group.get_world_size()
        # Lightning sets the variables of rank 0 when it starts the other ranks.
        is_launched = self._is_launched or (
            self._is_given and find_launched_rank(is_given=True) is not None
        )
        if is_launched and not self._is_copy and (rank == 0) == (self.rank == 0):
            self._group, self.rank = group, rank
        elif rank or self._is_copy or self._is_listening:
            self._is_joining = True  # every further call is refused, too
            raise TrialbusError(
                f"this process became rank {rank} of {size} after trialbus.attach(): call "
                "torch.distributed.init_process_group() before trialbus.attach(), and call both "
                "only in the processes that train"
            )


def _find_group() -> Any:
    """Return `torch.distributed` if it has a process group of several ranks, else None."""
    distributed = cast(Any, sys.modules.get("torch.distributed"))
    is_grouped = bool(
        distributed
        and distributed.is_available()
        and distributed.is_initialized()
        and distributed.get_world_size() > 1
    )
    return distributed if is_grouped else None
