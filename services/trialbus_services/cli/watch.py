"""`trialbus watch`: the progress of a running study in any terminal."""

from __future__ import annotations

import argparse
import contextlib
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
from rich.console import Console

from trialbus.client.admin import hub_status
from trialbus.client.link import Link
from trialbus.client.subscriber import Subscriber, subscribe
from trialbus.errors import HubUnavailableError, SpecError
from trialbus.hub.stored_log import read_stored_events
from trialbus.messages import events
from trialbus.protocol.status import SessionStatus
from trialbus.study.validation import find_nearest
from trialbus_services.cli.options import add_endpoint
from trialbus_services.cli.stored_log import find_stored_log, print_source
from trialbus_services.cli.stored_watch import print_stored_study
from trialbus_services.process import exit_codes
from trialbus_services.views.formats import strip_control_characters
from trialbus_services.views.history import History, collect_histories, read_histories
from trialbus_services.views.study_view import StudyView
from trialbus_services.views.summary import print_report, print_summary
from trialbus_services.views.terminal_view import TerminalView

_CONNECT_S = 5.0
_TICK_S = 0.125
_QUIET_S = 3.0
_PROBE_S = 0.5
_PROBES = 4  # in a row without an optimizer: one that is being started takes a few seconds
_REPORT_S = 120.0


def watch(arguments: Sequence[str]) -> int:
    """Show a study until the study ends or the user detaches, and return the exit code.

    Without a hub, or on a bus without any study, the command waits.

    Raises:
        SpecError: There is no study of that name; names the nearest study.
    """
    parser = argparse.ArgumentParser(
        prog="trialbus watch",
        description="Show a study while it runs. Ctrl-C detaches; the study continues.",
    )
    parser.add_argument(
        "study", nargs="?", help="name of the study; without it, the study that runs"
    )
    add_endpoint(parser)
    options = parser.parse_args(arguments)
    console = Console()
    folder = find_stored_log(options.endpoint)
    if folder is not None:
        code = _show_stored(folder, options.study, console)
        if code is not None:
            return code
    with Link(options.endpoint) as link:
        history = _choose_study(_wait_for_studies(link, console), options.study)
        if history is None:
            return exit_codes.WRONG_INPUT
        try:
            return _StudyWatcher(history, link, console).run()
        except KeyboardInterrupt:
            again = f"trialbus watch {shlex.quote(strip_control_characters(history.study))}"
            _print(console, f"detached; the study continues, and {again} shows it again")
            return exit_codes.INTERRUPTED


def _show_stored(folder: Path, name: str | None, console: Console) -> int | None:
    """Show a finished study of a log on disk, and return the exit code.

    None if the study has not finished, or is not in the log: its hub may come back.
    """
    histories = collect_histories(read_stored_events(folder))
    if not histories or (name is not None and name not in histories):
        return None
    print_source(folder)
    history = _choose_study(histories, name)
    if history is None:
        return exit_codes.WRONG_INPUT
    if history.state != "finished":
        line = f"study {strip_control_characters(history.study)}: {history.describe()}"
        _print(console, f"{line}; the same study command resumes it")
        return None
    return print_stored_study(folder, history, console)


def _wait_for_studies(link: Link, console: Console) -> dict[str, History]:
    """Wait for a hub with a study in the log, and return the histories of all studies by name."""
    is_announced = False
    while True:
        try:
            link.wait_connected(_QUIET_S)
            break
        except HubUnavailableError:
            if not is_announced:
                line = f"no hub answers at {link.endpoint}; waiting for one (Ctrl-C ends this)"
                _print(console, line)
            is_announced = True
    with subscribe(events.StudySubmitted, start="now", link=link) as inbox:
        inbox.wait_ready(_CONNECT_S)
        if histories := read_histories(link):
            return histories
        _print(console, f"no study on {link.endpoint} yet; waiting for one (Ctrl-C ends this)")
        while inbox.next(_TICK_S) is None:
            pass
    return read_histories(link)


def _choose_study(histories: dict[str, History], name: str | None) -> History | None:
    """Return the history of the study to show; None after printing the names of several studies."""
    if name is not None and name not in histories:
        near = find_nearest(name, histories)
        known = ", ".join(map(strip_control_characters, histories))
        hint = f"did you mean {near!r}?" if near else f"there are: {known}"
        raise SpecError("study", f"no study {name!r} was submitted on this bus; {hint}")
    if name is not None:
        return histories[name]
    running = [history for history in histories.values() if history.state != "finished"]
    candidates = running or list(histories.values())
    if len(candidates) == 1:
        return candidates[0]
    print("which study? type one of:", file=sys.stderr)
    commands = {
        h.study: f"trialbus watch {shlex.quote(strip_control_characters(h.study))}"
        for h in histories.values()
    }
    width = max(map(len, commands.values()))
    for history in candidates:
        print(f"  {commands[history.study]:{width}}  {history.describe()}", file=sys.stderr)
    return None


class _StudyWatcher:
    """Shows a study in a terminal, from the history to the end of the study."""

    def __init__(self, history: History, link: Link, console: Console) -> None:
        self._history = history
        self._link = link
        self._console = console
        # Time of the event of the log that is read now; None once the view has caught up.
        self._replayed_at: float | None = history.began_at
        self._view = StudyView(history.study, clock=self._now)
        self._report: events.ReportReady | None = None
        self._answered_at = time.monotonic()  # when the hub last answered
        self._is_hub_away = False
        self._n_missing = 0  # probes in a row that found no optimizer

    def run(self) -> int:
        """Show the study to the end and return the exit code."""
        for event in self._history.before:
            self._apply(event)
        with subscribe(
            study=self._history.study, start=self._history.start, link=self._link
        ) as inbox:
            self._catch_up(inbox)
            finished = self._follow(inbox)
            print_summary(
                self._console,
                finished,
                metrics=self._view.metrics,
                directions=self._view.directions,
                wall_s=self._view.elapsed_s,
            )
            self._await_report(inbox, finished.submission)
        if self._report and self._report.paths:
            print_report(self._console, Path(self._report.paths[0]))
        return exit_codes.get_study_code(finished)

    def _follow(self, inbox: Subscriber[events.AnyEvent]) -> events.StudyFinished:
        """Show the progress of the study and return the event that ended the study."""
        if (finished := self._finished) is not None:
            return finished
        self._print("Ctrl-C detaches; the study continues", style="dim")
        with TerminalView(self._view, console=self._console) as terminal:
            while (finished := self._finished) is None:
                self._handle_event(inbox)
                terminal.update()
        return finished

    @property
    def _finished(self) -> events.StudyFinished | None:
        return self._view.finished if self._view.state == "finished" else None

    def _catch_up(self, inbox: Subscriber[events.AnyEvent]) -> None:
        """Replay the events of the log into the view, with the clock of each event."""
        with (
            self._console.status("reading the log")
            if self._console.is_terminal
            else contextlib.nullcontext()
        ):
            for record in inbox.read_to(None):
                with contextlib.suppress(msgspec.DecodeError):
                    self._apply(record.event)
        self._replayed_at = None
        self._view.take_notes()  # drops the notes about old events

    def _handle_event(self, inbox: Subscriber[events.AnyEvent]) -> None:
        """Wait a moment for the next event, and look after the hub when none comes."""
        event = inbox.next(_TICK_S)
        if event is not None:
            self._apply(event)
            self._answered_at = time.monotonic()
        elif time.monotonic() - self._answered_at > _QUIET_S:
            self._probe_hub()

    def _probe_hub(self) -> None:
        """Find out whether only the study is silent, or the hub or the optimizer is not there."""
        sessions = self._read_sessions(_PROBE_S)
        is_away = sessions is None
        if is_away != self._is_hub_away:
            self._print("the hub does not answer; waiting for it" if is_away else "the hub is back")
        self._is_hub_away = is_away
        if sessions is not None:
            self._answered_at = time.monotonic()
            if self._finished is None:
                self._note_optimizer(is_up=any(s.kind == "optimizer" for s in sessions))

    def _note_optimizer(self, *, is_up: bool) -> None:
        """Print that no optimizer runs, unless it is only just being started, or is there again."""
        if is_up and self._n_missing >= _PROBES:
            self._print("an optimizer runs again")
        self._n_missing = 0 if is_up else self._n_missing + 1
        if self._n_missing == _PROBES:
            self._print("no optimizer runs: the study waits until the study is started again")

    def _apply(self, event: events.AnyEvent) -> None:
        if isinstance(event, events.UnknownEvent):
            return
        if self._replayed_at is not None:
            self._replayed_at = event.at
        if isinstance(event, events.ReportReady):
            self._report = event
        if isinstance(event, events.StudyStarted):
            self._n_missing = 0
        self._view.apply(event)

    def _await_report(self, inbox: Subscriber[events.AnyEvent], submission: str) -> None:
        """Wait for the report of the study while a reporter is up."""
        deadline = time.monotonic() + _REPORT_S
        while not self._has_report(submission) and self._is_up("reporter"):
            if time.monotonic() > deadline or self._is_hub_away:
                return
            probe_at = time.monotonic() + _QUIET_S
            while not self._has_report(submission) and time.monotonic() < probe_at:
                self._handle_event(inbox)

    def _has_report(self, submission: str) -> bool:
        return self._report is not None and self._report.submission == submission

    def _is_up(self, kind: str) -> bool:
        return any(session.kind == kind for session in self._read_sessions(_CONNECT_S) or [])

    def _read_sessions(self, timeout_s: float) -> list[SessionStatus] | None:
        """Return the sessions on the bus; None if the hub does not answer."""
        try:
            return hub_status(self._link, timeout_s).sessions
        except HubUnavailableError:
            return None

    def _now(self) -> float:
        return time.time() if self._replayed_at is None else self._replayed_at

    def _print(self, line: str, style: str = "yellow") -> None:
        _print(self._console, line, style)


def _print(console: Console, line: str, style: str = "yellow") -> None:
    console.print(line, style=style, highlight=False, markup=False, soft_wrap=True)
