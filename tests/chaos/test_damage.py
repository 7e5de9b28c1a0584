"""Images of a damaged disk, by the hundred; `./scripts/chaos --damage N` for more."""

from __future__ import annotations

from pathlib import Path

import pytest

from chaos.damage import KINDS, DamagedLogs, Kind


@pytest.mark.parametrize("kind", KINDS)
def test_no_damage_of_this_kind_alters_or_hides_anything_silently(
    tmp_path: Path, kind: Kind
) -> None:
    logs = DamagedLogs(tmp_path, seed=1)
    verdicts = [logs.judge(kind) for _ in range(100)]
    assert verdicts.count("silent") == 0
    assert verdicts.count("noticed") > 10


def test_no_acknowledged_event_is_missing_after_a_power_loss(tmp_path: Path) -> None:
    logs = DamagedLogs(tmp_path, seed=2)
    assert all(logs.survives_power_loss() for _ in range(300))
