"""Run the reporter: a report for every `study_finished`, and notices about reports."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Mapping
from pathlib import Path

import msgspec

from trialbus.client.link import Link
from trialbus.client.presence import Presence
from trialbus.client.publisher import Publisher
from trialbus.client.subscriber import replay, subscribe
from trialbus.errors import HubUnavailableError
from trialbus.messages import events
from trialbus_services.config.secrets import mask_secrets
from trialbus_services.config.settings import BusSettings, ReporterSettings, StorageSettings
from trialbus_services.notify.listener import run_listeners
from trialbus_services.notify.notice import Notifier
from trialbus_services.process import exit_codes
from trialbus_services.process.fork_servers import end_fork_server
from trialbus_services.process.signals import install_stop_event
from trialbus_services.process.takeover import describe_process, end_dead_sessions
from trialbus_services.reporter.report_process import (
    ReportError,
    make_report_in_process,
    prepare,
)

logger = logging.getLogger(__name__)

_NAME = "reporter"
_TTL_S = 3.0  # the report is made in another process, which holds up no heartbeat
_TAKEOVER_S = 1.5 * _TTL_S
_FETCH_S = 1.0
_FLUSH_S = 5.0
_MAX_ATTEMPTS = 3
_RETRY_S = 1.0


def run(
    bus: BusSettings,
    storage: StorageSettings,
    report: ReporterSettings,
    notifiers: Mapping[str, Notifier] | None = None,
) -> int:
    """Serve until SIGTERM or SIGINT and return the exit code.

    A study that finished while no reporter ran is reported when a reporter runs again: the offset
    is committed only once `report_ready` is in the log. A report that fails is tried three times;
    then `report_ready` carries the error.

    Raises:
        HubRefusedError: Another reporter serves this bus.
    """
    stop = install_stop_event()
    prepare()
    with contextlib.ExitStack() as stack:
        stack.callback(end_fork_server)
        link = stack.enter_context(Link(bus.endpoint))
        link.wait_connected(bus.connect_s)
        info = {"storage": mask_secrets(storage.url), **describe_process()}
        end_dead_sessions(link, _NAME)
        with (
            Presence(
                link=link, kind=_NAME, name=_NAME, ttl_s=_TTL_S, info=info, exclusive=True
            ) as presence,
            run_listeners(notifiers or {}, link, stop),
        ):
            # A reporter that died on another host counts as alive for the time-to-live.
            presence.wait_registered(_TAKEOVER_S)
            logger.info("serving on %s, writing to %s", bus.endpoint, Path(report.dir).absolute())
            _serve(link, storage.url, report, stop)
    return exit_codes.DONE


def _serve(link: Link, storage_url: str, report: ReporterSettings, stop: threading.Event) -> None:
    with (
        subscribe(
            events.StudyFinished, name=_NAME, start="earliest", autocommit=False, link=link
        ) as inbox,
        Publisher(link=link) as publisher,
    ):
        while not stop.is_set():
            event = inbox.next(_FETCH_S)
            if event is None:
                continue
            if not _has_report_ready(link, event, stop):
                ready = _make_report(event, storage_url, report, stop)
                if ready is None:
                    return
                publisher.publish(ready)
                while not publisher.flush(_FLUSH_S):
                    if stop.is_set():
                        return
            inbox.commit()


def _has_report_ready(link: Link, event: events.StudyFinished, stop: threading.Event) -> bool:
    """Return whether the log holds the `report_ready` of a submission already."""
    while not stop.is_set():
        with contextlib.suppress(HubUnavailableError):
            for record in replay(events.ReportReady, study=event.study, link=link):
                with contextlib.suppress(msgspec.DecodeError):
                    if getattr(record.event, "submission", None) == event.submission:
                        return True
            return False
    return False


def _make_report(
    event: events.StudyFinished, storage_url: str, report: ReporterSettings, stop: threading.Event
) -> events.ReportReady | None:
    """Make the report of a study and return the `report_ready`; None if `stop` was set."""
    for attempt in range(1, _MAX_ATTEMPTS + 1):
        try:
            paths = make_report_in_process(
                event.study, storage_url, Path(report.dir), report, stop=stop
            )
        except ReportError as error:
            logger.warning(
                "no report of study %r at try %d of %d: %s%s",
                *(event.study, attempt, _MAX_ATTEMPTS, error),
                f"\n{error.__cause__}" if error.__cause__ else "",
            )
            if attempt == _MAX_ATTEMPTS:
                return _create_report_ready(event, error=str(error))
            if stop.wait(_RETRY_S * attempt):
                return None
        else:
            if paths is None:
                return None
            logger.info("reported study %r: %s", event.study, paths[0])
            return _create_report_ready(event, paths=[str(path) for path in paths])
    raise AssertionError


def _create_report_ready(
    event: events.StudyFinished, *, paths: list[str] | None = None, error: str | None = None
) -> events.ReportReady:
    return events.ReportReady(
        study=event.study, submission=event.submission, paths=paths or [], error=error
    )
