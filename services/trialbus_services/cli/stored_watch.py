"""What `trialbus watch` prints of a study whose hub has ended."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import msgspec
from rich.console import Console

from trialbus.hub.stored_log import read_stored_events
from trialbus.messages import events
from trialbus.messages.topics import make_pattern
from trialbus_services.process import exit_codes
from trialbus_services.views.history import History
from trialbus_services.views.study_view import StudyView
from trialbus_services.views.summary import print_report, print_summary


def print_stored_study(folder: Path, history: History, console: Console) -> int:
    """Print the summary of a study that has finished, and return the exit code of the study.

    Args:
        folder: Folder of the log.
        history: History of the study, which has finished.
        console: Console to print to.
    """
    now = history.began_at
    view = StudyView(history.study, clock=lambda: now)
    finished: events.StudyFinished | None = None
    page: Path | None = None
    for event in history.before:
        now = event.at
        view.apply(event)
    pattern = make_pattern(study=history.study)
    for record in read_stored_events(folder, frozenset({pattern}), history.start):
        with contextlib.suppress(msgspec.DecodeError):
            event = record.event
            now = event.at if not isinstance(event, events.UnknownEvent) else now
            view.apply(event)
            if isinstance(event, events.StudyFinished):
                finished = event
            if isinstance(event, events.ReportReady) and event.paths:
                page = Path(event.paths[0])
    assert finished is not None
    ended = time.strftime("%Y-%m-%d %H:%M", time.localtime(finished.at))
    console.print(f"finished {ended}", style="dim", highlight=False)
    print_summary(
        console,
        finished,
        metrics=view.metrics,
        directions=view.directions,
        wall_s=view.elapsed_s,
    )
    if page is not None:
        print_report(console, page)
    return exit_codes.get_study_code(finished)
