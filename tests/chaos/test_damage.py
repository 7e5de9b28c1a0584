"""Images of a damaged disk, by the hundred; `./scripts/chaos --damage N` makes more."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from chaos.damage import KINDS, DamagedLogs, DamageKind, read_log
from trialbus.errors import LogError
from trialbus.hub.log import EventLog
from trialbus.hub.log_check import check_log
from trialbus.hub.log_repair import repair_log


@pytest.mark.parametrize("kind", KINDS)
def test_no_damage_of_this_kind_alters_or_hides_anything_silently(
    tmp_path: Path, kind: DamageKind
) -> None:
    logs = DamagedLogs(tmp_path, seed=1)
    verdicts = [logs.judge(kind) for _ in range(50)]
    assert verdicts.count("silent") == 0
    assert verdicts.count("noticed") > 5


def test_no_acknowledged_event_is_missing_after_a_power_loss(tmp_path: Path) -> None:
    logs = DamagedLogs(tmp_path, seed=2)
    assert all(logs.survives_power_loss() for _ in range(100))


@pytest.mark.parametrize("kind", KINDS)
def test_a_repair_keeps_what_is_intact_and_gives_no_offset_again(
    tmp_path: Path, kind: DamageKind
) -> None:
    logs = DamagedLogs(tmp_path, seed=3)
    n_repaired = 0
    for _ in range(15):
        files, truth = logs.damage(kind)
        logs.write(files)
        try:
            with closing(EventLog(logs.image)) as log:
                readable, _ = read_log(log)
                is_damaged = log.damaged > 0
        except LogError:
            readable, is_damaged = [], True
        logs.write(files)
        report = check_log(logs.image)
        assert is_damaged <= (not report.is_intact)
        report = repair_log(logs.image)
        n_repaired += report.backup is not None
        with closing(EventLog(logs.image)) as log:
            events, _ = read_log(log)
            assert log.damaged == 0
            assert log.end >= truth.end or files["events.end"] != truth.files["events.end"]
        if report.backup:
            assert check_log(logs.image).is_intact
        assert set(readable) & set(truth.events) <= set(events)
    assert n_repaired > 0
