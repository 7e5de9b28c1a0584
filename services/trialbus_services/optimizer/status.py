"""The status of an optimizer, sent to the hub as information of the optimizer's session."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from trialbus_services.optimizer.latency import Percentiles

_MAX_TEXT = 250  # the hub refuses longer texts


class OptimizerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Counters, states and latencies of an optimizer since the start of the process."""

    studies: int = 0
    """Number of running studies."""
    complete: int = 0
    """Number of complete trials of the running studies."""
    pruned: int = 0
    """Number of pruned trials of the running studies."""
    failed: int = 0
    """Number of failed trials of the running studies."""
    running: int = 0
    """Number of trials of the running studies that run, or wait for their next attempt."""
    n_paused: int = 0
    """Number of paused studies."""
    paused: str = ""
    """Names of the paused studies, separated by commas; cut at 250 characters."""
    applied: int = 0
    """Number of events applied."""
    refused: dict[str, int] = {}
    """Number of events not applied, by the reason."""
    last_refused: str = ""
    """Reason and event of the last refusal; empty before the first."""
    pending_rows: int = 0
    """Number of rows that wait to be written to the storage."""
    storage_error: str = ""
    """Why the storage cannot be written now; empty while it can."""
    decision: Percentiles | None = None
    """Latency of a pruning decision, from reading an evaluation to its answer."""
    answer: Percentiles | None = None
    """Latency of an assignment, from reading a request to publishing the assigned trial."""
    sampling: Percentiles | None = None
    """Latency of a suggestion in the sampler's process."""

    @property
    def n_refused(self) -> int:
        """Number of events not applied, for any reason."""
        return sum(self.refused.values())


def to_info(status: OptimizerStatus) -> dict[str, str | float]:
    """Return a status as flat information of a session, such as `decision.p50_s`."""
    info: dict[str, str | float] = {}
    for name, value in msgspec.to_builtins(status).items():
        match value:
            case dict():
                info |= {f"{name}.{key}": inner for key, inner in value.items()}  # pyright: ignore[reportUnknownVariableType]
            case str():
                info[name] = value[:_MAX_TEXT]
            case None:
                pass
            case _:
                info[name] = value
    return info


def from_info(info: Mapping[str, Any]) -> OptimizerStatus | None:
    """Return the status in the information of a session; None for a status of another version."""
    fields: dict[str, Any] = {}
    for key, value in info.items():
        name, dot, inner = key.partition(".")
        if dot:
            fields.setdefault(name, {})[inner] = value
        else:
            fields[name] = value
    try:
        return msgspec.convert(fields, OptimizerStatus)
    except msgspec.ValidationError:
        return None
