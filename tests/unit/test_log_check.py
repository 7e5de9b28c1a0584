"""`trialbus log check` reports an intact and a damaged log, and a repair keeps intact events."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from trialbus.hub.log import Change, EventLog
from trialbus_services.cli.main import main

_ALL = frozenset({"*/*/*"})


def make_log(directory: Path) -> list[str]:
    """Write a log of two studies, the first finished, and return the topics."""
    topics = [
        "study_submitted/a/",
        *["evaluation_complete/a/1"] * 8,
        "study_finished/a/",
        "study_submitted/b/",
        *["evaluation_complete/b/1"] * 9,
    ]
    with closing(EventLog(directory)) as log:
        events = [(b"p" * 16, i + 1, topic, msgspec.Raw(b"\x80")) for i, topic in enumerate(topics)]
        log.append(Change(events=events, publishers={b"p" * 16: 20}, committed={"reader": 15}))
    return topics


def execute(directory: Path, sql: str) -> None:
    with closing(sqlite3.connect(directory / "events.db", isolation_level=None)) as db:
        db.execute(sql)


def test_an_intact_log_is_said_to_be_intact_while_a_hub_has_it_open(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_log(tmp_path)
    with closing(EventLog(tmp_path)):
        assert main(["log", "check", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "20 events, the next offset is 20" in out
    assert "Nothing is damaged" in out


def test_damage_is_named_with_its_offsets_and_studies_and_a_way_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_log(tmp_path)
    execute(tmp_path, "UPDATE event SET body = x'00' WHERE offset IN (12, 13)")
    execute(tmp_path, "DELETE FROM event WHERE offset = 3")
    assert main(["log", "check", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "offset 3: the events are gone (study a)" in out
    assert "offsets 12 to 13: the checksum does not match (study b)" in out
    assert "trialbus log check --repair" in out
    assert main(["log", "check", "--json", str(tmp_path)]) == 1
    assert len(json.loads(capsys.readouterr().out)["damaged"]) == 2


def test_a_repair_leaves_out_what_is_damaged_and_keeps_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    topics = make_log(tmp_path)
    execute(tmp_path, "UPDATE event SET body = x'00' WHERE offset = 12")
    assert main(["log", "check", "--repair", str(tmp_path)]) == 0
    assert "Repaired: 1 damaged events are left out" in capsys.readouterr().out
    assert len(list(tmp_path.glob("damaged-*/events.db"))) == 1
    with closing(EventLog(tmp_path)) as log:
        records, _ = log.read(0, _ALL, max_events=100, max_bytes=1 << 20)
        assert [(r.offset, r.topic) for r in records] == [
            (i, topic) for i, topic in enumerate(topics) if i != 12
        ]
        assert (log.damaged, log.lost, log.end, log.durable) == (0, 1, 20, {"reader": 15})
    assert main(["log", "check", str(tmp_path)]) == 0
    assert "lost before: 1 events" in capsys.readouterr().out


def test_a_file_of_which_nothing_can_be_read_is_replaced_by_a_log_that_goes_on_after_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_log(tmp_path)
    with closing(EventLog(tmp_path)) as log:
        log_id = log.log_id
    (tmp_path / "events.db").write_bytes(b"not a database" * 1000)
    assert main(["log", "check", str(tmp_path)]) == 1
    assert "cannot be read as a database" in capsys.readouterr().out
    assert main(["log", "check", "--repair", str(tmp_path)]) == 0
    with closing(EventLog(tmp_path)) as log:
        assert (log.log_id, log.end, log.lost, log.damaged) == (log_id, 20, 20, 0)


def test_a_log_in_use_is_not_repaired(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_log(tmp_path)
    with closing(EventLog(tmp_path)):
        assert main(["log", "check", "--repair", str(tmp_path)]) != 0
    assert "in use" in capsys.readouterr().err


def test_a_folder_without_a_log_is_an_error_that_names_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["log", "check", str(tmp_path / "nope")]) != 0
    assert "there is no log at" in capsys.readouterr().err
