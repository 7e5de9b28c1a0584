"""Notes: lines of text about the events of a study, for views that scroll."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from trialbus.study.retries import FailureCause

_QUOTED_LINES = 10

NoteKind: TypeAlias = Literal[
    "complete",
    "pruned",
    "failed",
    "interrupted",
    "killed",
    "lost",
    "memory",
    "missing",
    "resumed",
    "silent",
    "timed out",
]
"""Kind of a note, which is a part of the note's text as well."""

#: Kind and text of the note about an attempt that is followed by another, by the cause of the end.
RETRY_NOTES: dict[FailureCause, tuple[NoteKind, str]] = {
    "exception": ("failed", "failed"),
    "killed": ("killed", "was killed"),
    "lost": ("lost", "was lost"),
    "out_of_memory": ("memory", "ran out of memory"),
    "preempted": ("interrupted", "was interrupted"),
    "silent": ("silent", "was silent for too long"),
    "timed_out": ("timed out", "timed out"),
}


@dataclass(frozen=True)
class Note:
    """Line of text about an event; the text may contain text of users."""

    kind: NoteKind
    text: str


def get_last_line(error: str | None) -> str:
    """Return the last line of an error, which says most."""
    lines = (error or "").strip().splitlines()
    return lines[-1].strip() if lines else "no reason given"


def quote_lines(error: str | None) -> str:
    """Return the lines before the last line of an error, to stand below a note with the last."""
    lines = (error or "").strip().splitlines()
    return "".join(f"\n  | {line}" for line in lines[-_QUOTED_LINES:-1])
