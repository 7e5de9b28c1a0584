"""What the hub remembers of the readers of durable names is bounded by the number of names."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from trialbus.hub.durable_names import DurableNames
from trialbus.hub.log import Change, EventLog
from trialbus.protocol import frames, limits


def test_names_without_an_offset_cost_no_memory_and_readers_of_others_stay(tmp_path: Path) -> None:
    with closing(EventLog(tmp_path, sync="normal")) as log:
        log.append(Change(committed={"mine": 0}))
        names = DurableNames(log)
        fetch = frames.Fetch(1, 0, ["*/*/*"], name="mine", reader="newest")
        assert names.begin("mine", fetch, 0, "", "service")[1] is None
        for i in range(10 * limits.DURABLE_NAMES):
            # The hub refuses each: the log does not reach to its offset.
            names.find_refusal(frames.Commit(f"name {i}", 1 << 60, "me"), Change(), "", "service")
        n_readers = len(names._readers)  # pyright: ignore[reportPrivateUsage]
        assert n_readers <= 2 * limits.DURABLE_NAMES
        former = frames.Commit("mine", 0, "former")
        refusal = names.find_refusal(former, Change(), "", "service")
        assert refusal is not None
        assert "another subscriber took over" in refusal[1]
        assert names.find_refusal(frames.Commit("mine", 0, "newest"), Change(), "", None) is None
