"""`trialbus watch`: a study that runs, shown in any terminal, for as long as one likes."""

from __future__ import annotations

import argparse
import contextlib
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console

from trialbus.client.admin import hub_status
from trialbus.client.link import Link
from trialbus.client.subscriber import Subscriber, subscribe
from trialbus.errors import HubUnavailableError, SpecError
from trialbus.messages import events
from trialbus.protocol.endpoint import DEFAULT_ENDPOINT, ENDPOINT_VARIABLE
from trialbus.study.validation import find_nearest
from trialbus_services.process import exit_codes
from trialbus_services.views.history import History, read_histories
from trialbus_services.views.study_view import StudyView
from trialbus_services.views.summary import print_summary
from trialbus_services.views.terminal import TerminalView, plain

_CONNECT_S = 5.0
_TICK_S = 0.125
_QUIET_S = 3.0
_KNOCK_S = 0.5
_REPORT_S = 120.0


def watch(arguments: Sequence[str]) -> int:
    """Show a study until it ends or the user has seen enough, and return the exit code.

    Raises:
        SpecError: There is no such study; names the nearest one.
        HubUnavailableError: There is no hub.
    """
    parser = argparse.ArgumentParser(
        prog="trialbus watch",
        description="Show a study while it runs. Ctrl-C detaches; the study goes on.",
    )
    parser.add_argument("study", nargs="?", help="its name; without one, the study that runs")
    parser.add_argument(
        "--endpoint",
        help=f"where the hub is (default: ${ENDPOINT_VARIABLE}, else {DEFAULT_ENDPOINT})",
    )
    options = parser.parse_args(arguments)
    console = Console()
    with Link(options.endpoint) as link:
        link.wait_connected(_CONNECT_S)
        history = _chosen(read_histories(link), options.study)
        if history is None:
            return exit_codes.WRONG_INPUT
        try:
            return _Watch(history, link, console).run()
        except KeyboardInterrupt:
            again = f"trialbus watch {shlex.quote(plain(history.study))}"
            console.print(
                f"detached; the study goes on, and {again} shows it again",
                style="yellow",
                highlight=False,
                markup=False,
                soft_wrap=True,
            )
            return exit_codes.INTERRUPTED


def _chosen(histories: dict[str, History], name: str | None) -> History | None:
    """Return the study to show; None if there is a choice, which is printed then."""
    if name is not None and name not in histories:
        near = find_nearest(name, histories)
        known = ", ".join(map(plain, histories))
        hint = f"did you mean {near!r}?" if near else f"there are: {known or 'none yet'}"
        raise SpecError("study", f"no study {name!r} was submitted on this bus; {hint}")
    if name is not None:
        return histories[name]
    running = [history for history in histories.values() if history.state != "finished"]
    if len(running) == 1:
        return running[0]
    if not histories:
        raise SpecError("study", "none was submitted on this bus yet (expected one to watch)")
    print("which study? type one of:", file=sys.stderr)
    commands = {
        h.study: f"trialbus watch {shlex.quote(plain(h.study))}" for h in histories.values()
    }
    width = max(map(len, commands.values()))
    for history in running or histories.values():
        print(f"  {commands[history.study]:{width}}  {history.described}", file=sys.stderr)
    return None


class _Watch:
    """One look at a study, from its history to its end."""

    def __init__(self, history: History, link: Link, console: Console) -> None:
        self._history = history
        self._link = link
        self._console = console
        self._past: float | None = history.began_at  # when the events happened that are read now
        self._view = StudyView(history.study, clock=self._now)
        self._report: events.ReportReady | None = None
        self._heard = time.monotonic()  # when the hub was last there
        self._away = False

    def run(self) -> int:
        """Show it and return the exit code of its end."""
        for event in self._history.before:
            self._take(event)
        with subscribe(
            study=self._history.study, start=self._history.start, link=self._link
        ) as inbox:
            self._catch_up(inbox)
            finished = self._follow(inbox)
            self._await_report(inbox, finished.submission)
        report = self._report.paths if self._report else []
        print_summary(
            self._console,
            finished,
            metrics=self._view.metrics,
            directions=self._view.directions,
            wall_s=self._view.elapsed_s,
            report=Path(report[0]) if report else None,
        )
        return exit_codes.for_study(finished)

    def _follow(self, inbox: Subscriber[events.AnyEvent]) -> events.StudyFinished:
        """Show what happens until the study has ended; nothing if it has."""
        if (finished := self._finished) is not None:
            return finished
        self._say("Ctrl-C detaches; the study goes on", style="dim")
        self._tell_of_missing_optimizer()
        with TerminalView(self._view, console=self._console) as terminal:
            while (finished := self._finished) is None:
                self._step(inbox)
                terminal.update()
        return finished

    @property
    def _finished(self) -> events.StudyFinished | None:
        return self._view.finished if self._view.state == "finished" else None

    def _catch_up(self, inbox: Subscriber[events.AnyEvent]) -> None:
        """Take in what happened so far, as of the times when it happened."""
        with (
            self._console.status("reading the log")
            if self._console.is_terminal
            else contextlib.nullcontext()
        ):
            for record in inbox.read_to(None):
                with contextlib.suppress(msgspec.DecodeError):
                    self._take(record.event)
        self._past = None
        self._view.take_notes()  # news of long ago

    def _step(self, inbox: Subscriber[events.AnyEvent]) -> None:
        event = inbox.next(_TICK_S)
        if event is not None:
            self._take(event)
            self._heard = time.monotonic()
        elif time.monotonic() - self._heard > _QUIET_S:
            self._knock()

    def _knock(self) -> None:
        """Find out whether it is the study that is quiet, or the hub."""
        away = self._sessions(_KNOCK_S) is None
        if away != self._away:
            self._say("the hub does not answer; waiting for it" if away else "the hub is back")
        self._away = away
        if not away:
            self._heard = time.monotonic()

    def _take(self, event: events.AnyEvent) -> None:
        if isinstance(event, events.UnknownEvent):
            return
        if self._past is not None:
            self._past = event.at
        if isinstance(event, events.ReportReady):
            self._report = event
        self._view.apply(event)

    def _await_report(self, inbox: Subscriber[events.AnyEvent], submission: str) -> None:
        """Wait for the report where somebody is there to write it."""
        deadline = time.monotonic() + _REPORT_S
        while not self._has_report(submission) and self._is_up("reporter"):
            if time.monotonic() > deadline or self._away:
                return
            look_again = time.monotonic() + _QUIET_S
            while not self._has_report(submission) and time.monotonic() < look_again:
                self._step(inbox)

    def _has_report(self, submission: str) -> bool:
        return self._report is not None and self._report.submission == submission

    def _tell_of_missing_optimizer(self) -> None:
        if not self._is_up("optimizer"):
            self._say("no optimizer is up: nothing goes on until the study is started again")

    def _is_up(self, kind: str) -> bool:
        return any(session["kind"] == kind for session in self._sessions(_CONNECT_S) or [])

    def _sessions(self, timeout_s: float) -> list[dict[str, Any]] | None:
        """Return who is on the bus; None if the hub does not answer."""
        try:
            sessions: list[dict[str, Any]] = hub_status(self._link, timeout_s)["sessions"]
        except HubUnavailableError:
            return None
        return sessions

    def _now(self) -> float:
        return time.time() if self._past is None else self._past

    def _say(self, line: str, style: str = "yellow") -> None:
        self._console.print(line, style=style, highlight=False, markup=False)
