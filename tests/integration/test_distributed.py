"""Distributed training with torch: rank 0 reports, and a prune reaches all ranks."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

import trialbus
from support.client import SPEC, Client, load_study, start_optimizer
from support.processes import Bus

STUDY = msgspec.structs.replace(
    SPEC,
    name="distributed",
    params={"lr": trialbus.FloatParam(low=0.001, high=0.01)},
    pruner=trialbus.Component(type="ThresholdPruner", args={"upper": 5}),
    n_trials=1,
)


def test_a_prune_stops_every_rank_at_the_same_step(
    bus: Bus, client: Callable[[], Client], tmp_path: Path
) -> None:
    bus.hub()
    start_optimizer(bus)
    listener = client()
    listener.submit(STUDY)
    ranks = [
        bus.run(
            f"rank-{rank}",
            [
                sys.executable,
                str(Path(__file__).parents[1] / "support" / "distributed.py"),
                str(rank),
                str(tmp_path / "meeting"),
                bus.endpoint,
            ],
        )
        for rank in range(2)
    ]
    assert [process.wait(50) for process in ranks] == [0, 0]
    outputs = [process.printed() for process in ranks]
    assert re.findall(r"trial 0 .*", outputs[0]) == re.findall(r"trial 0 .*", outputs[1])
    ended = [int(re.findall(r"ended after (\d+) steps", text)[0]) for text in outputs]
    assert 7 <= ended[0] == ended[1] < 1000
    assert listener.next(trialbus.StudyFinished).counts.pruned == 1
    # Each step once: the other rank published nothing.
    steps = load_study(bus, "distributed").trials[0].intermediate_values
    assert sorted(steps) == list(range(ended[0]))


def test_the_error_for_ranks_without_a_process_group_says_how_to_make_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(trialbus.TrialbusError, match=r"init_process_group\(\) before"):
        trialbus.attach()
