"""Damage to the files of a log: bit flips, cut files, torn writes, writes that never arrived.

`EventLog` writes a log, whose files are copied after every commit. Damaged images of the disk are
made of these states, opened and read like any log. The log must report every image that reads
other than the state.
"""

from __future__ import annotations

import random
import shutil
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import msgspec

from support.damage import cut_short, flip_bit
from support.ring_damage import read_damaged_images
from trialbus.client.ring_directory import locate_ring_directory
from trialbus.errors import LogError
from trialbus.hub.log import Change, EventLog
from trialbus.protocol.frames import Hello

DamageKind: TypeAlias = Literal["flip", "cut", "torn", "dropped"]
Verdict: TypeAlias = Literal["silent", "noticed", "refused", "harmless"]

KINDS: tuple[DamageKind, ...] = ("flip", "cut", "torn", "dropped")
_FILES = ("events.db", "events.db-wal", "events.end")
_PAGE = 4096
_SECTOR = 512
_WAL_HEADER = 32
_COMMITS = 60
_ALL = frozenset({"*/*/*"})


@dataclass(frozen=True)
class State:
    """The files of a log after a commit, and the content acknowledged until then."""

    files: dict[str, bytes]
    events: list[tuple[object, ...]]
    entries: tuple[object, ...]
    end: int


@dataclass
class Outcome:
    """Number of images by verdict."""

    damaged: int = 0
    silent: int = 0
    noticed: int = 0
    refused: int = 0
    harmless: int = 0


def record_states(directory: Path, seed: int) -> list[State]:
    """Write a log with entries in every table and return the states after each commit."""
    chance = random.Random(seed)
    log = EventLog(directory, sync="normal")
    # A checkpoint every few commits.
    log._db.execute("PRAGMA wal_autocheckpoint=40")  # pyright: ignore[reportPrivateUsage]
    states: list[State] = []
    last: Counter[bytes] = Counter()
    sessions = log.sessions  # which the hub keeps up to date
    for commit in range(_COMMITS):
        study = f"s{commit // 10}"
        change = Change()
        for i in range(chance.randrange(1, 12)):
            publisher = bytes([chance.randrange(3)]) * 16
            last[publisher] += 1
            type_ = "evaluation_complete" if i else "trial_started"
            topic = f"{type_}/{study}/{i}"
            body = msgspec.Raw(msgspec.msgpack.encode({"note": "x" * chance.randrange(300)}))
            change.events.append((publisher, last[publisher], topic, body))
            change.publishers[publisher] = last[publisher]
        if commit % 10 in {0, 9}:
            publisher = b"o" * 16
            last[publisher] += 1
            type_ = "study_finished" if commit % 10 else "study_submitted"
            body = msgspec.Raw(b"\x80")
            change.events.append((publisher, last[publisher], f"{type_}/{study}/", body))
            change.publishers[publisher] = last[publisher]
        change.committed[f"name{commit % 3}"] = log.end
        session = f"session{commit % 7}"
        sessions[session] = Hello(session, "trainer", "t", 1000, study, commit)
        change.sessions[session] = sessions[session]
        log.append(change)
        states.append(_copy_state(directory, log))
        if commit == _COMMITS // 2:
            span = log.studies["s0"]
            assert span.finished is not None
            log.forget("s0", span.first, span.finished + 1, last=True)
            states.append(_copy_state(directory, log))
    log.close()
    return states


def _copy_state(directory: Path, log: EventLog) -> State:
    files = {name: (directory / name).read_bytes() for name in _FILES}
    return State(files, *read_log(log), log.end)


class DamagedLogs:
    """Damaged images of a log's disk, and verdicts on the log's reading.

    Args:
        directory: Folder of the logs.
        seed: Seed of all choices.
    """

    def __init__(self, directory: Path, seed: int) -> None:
        self._chance = random.Random(seed)
        self._states = record_states(directory / "log", seed)
        self.image = directory / "image"

    def run(self, count: int) -> Outcome:
        """Judge `count` damaged images of logs and rings, and return the number of each verdict."""
        outcome = Outcome(damaged=count)
        n_rings = count // 4
        for i in range(count - n_rings):
            verdict = self.judge(KINDS[i % len(KINDS)])
            setattr(outcome, verdict, getattr(outcome, verdict) + 1)
        endpoint = f"ipc://{self.image}"
        rings = read_damaged_images(endpoint, n_rings, self._chance.randrange(1 << 30))
        shutil.rmtree(locate_ring_directory(endpoint), ignore_errors=True)
        outcome.silent += rings["silent"] + rings["altered"] + rings["lost before the damage"]
        outcome.noticed += rings["noticed"]
        outcome.harmless += rings["harmless"]
        return outcome

    def judge(self, kind: DamageKind) -> Verdict:
        """Make an image with damage of a kind and return the verdict on the log's reading."""
        files, truth = self.damage(kind)
        self.write(files)
        try:
            with closing(EventLog(self.image)) as log:
                events, entries = read_log(log)
                is_reported = log.damaged > 0 or log.lost > 0
        except LogError:
            return "refused"
        if is_reported:
            return "noticed"
        return "harmless" if (events, entries) == (truth.events, truth.entries) else "silent"

    def damage(self, kind: DamageKind) -> tuple[dict[str, bytes], State]:
        """Return the files of a log with damage of a kind, and the state before."""
        chance = self._chance
        i = chance.randrange(len(self._states) // 2, len(self._states))
        state = self._states[i]
        files = dict(state.files)
        name = chance.choice([name for name in _FILES if files[name]])
        content = bytearray(files[name])
        match kind:
            case "flip":
                content = bytearray(flip_bit(bytes(content), chance)[0])
            case "cut":
                content = bytearray(cut_short(bytes(content), chance)[0])
            case "torn":  # the last write of a page arrived in part
                older = self._states[chance.randrange(i)].files[name]
                page = chance.randrange(-(-len(content) // _PAGE)) * _PAGE
                half = page + chance.randrange(1, _PAGE // _SECTOR) * _SECTOR
                content[half : page + _PAGE] = older[half : page + _PAGE].ljust(
                    max(0, min(page + _PAGE, len(content)) - half), b"\0"
                )
            case "dropped":  # pages that the disk confirmed and did not write
                name = chance.choice(["events.db", "events.db-wal"])
                content = bytearray(files[name])
                older = self._states[chance.randrange(i)].files[name]
                for page in range(0, len(content), _PAGE):
                    if chance.random() < 0.3:
                        content[page : page + _PAGE] = older[page : page + _PAGE].ljust(
                            min(_PAGE, len(content) - page), b"\0"
                        )
        files[name] = bytes(content)
        return files, state

    def survives_power_loss(self) -> bool:
        """Tell whether a log keeps its events when the power fails between two fsynced commits.

        SQLite flushes the write-ahead log at every commit, and before it copies pages into the
        other file; it flushes the new header before it writes over a log that was copied.
        """
        chance = self._chance
        i = chance.randrange(1, len(self._states) - 1)
        before, after = self._states[i], self._states[i + 1]
        if after.end == before.end:  # retention commits twice
            return True
        wal, newer_wal = (state.files["events.db-wal"] for state in (before, after))
        db = before.files["events.db"]
        if newer_wal[: len(wal)] != wal:  # the write-ahead log began anew
            frames = _mix(wal, newer_wal, _SECTOR, chance)[_WAL_HEADER:]
            wal = newer_wal[:_WAL_HEADER] + frames
        elif db != after.files["events.db"]:
            wal, db = newer_wal, _mix(db, after.files["events.db"], _SECTOR, chance)
        else:
            delta = newer_wal[len(wal) :]
            torn = _mix(bytes(len(delta)), delta, _SECTOR, chance)
            wal += torn[: chance.randrange(len(delta) + 1)]
        end = self._states[chance.randrange(i + 1)].files["events.end"]
        files = {"events.db": db, "events.db-wal": wal, "events.end": end}
        self.write(files)
        with closing(EventLog(self.image)) as log:
            events, _ = read_log(log)
            if log.damaged or log.lost:
                return False
        return events[: len(before.events)] == before.events

    def write(self, files: dict[str, bytes]) -> None:
        """Write the files of the image."""
        shutil.rmtree(self.image, ignore_errors=True)
        self.image.mkdir()
        for name, content in files.items():
            (self.image / name).write_bytes(content)


def _mix(old: bytes, new: bytes, size: int, chance: random.Random) -> bytes:
    """Return a file of old and new sectors."""
    length = max(len(old), len(new))
    old, new = old.ljust(length, b"\0"), new.ljust(length, b"\0")
    return b"".join(
        (old if chance.random() < 0.5 else new)[i : i + size] for i in range(0, length, size)
    )


def read_log(log: EventLog) -> tuple[list[tuple[object, ...]], tuple[object, ...]]:
    """Return the events of a log, and the content of the other tables."""
    events: list[tuple[object, ...]] = []
    offset = 0
    while offset < log.end:
        records, offset = log.read(offset, _ALL, max_events=10_000, max_bytes=1 << 30)
        events += [(r.offset, r.publisher, r.seq, r.topic, bytes(r.body)) for r in records]
    spans = {name: (span.first, span.finished) for name, span in log.studies.items()}
    entries = (
        log.log_id,
        log.end,
        dict(log.publishers),
        dict(log.durable),
        dict(log.sessions),
        spans,
    )
    return events, entries
