"""Run the reporter as a process: a report for every `study_finished`."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import optuna

from trialbus import events
from trialbus.link import Link
from trialbus.presence import Presence
from trialbus.publisher import Publisher
from trialbus.subscriber import subscribe
from trialbus_services.optimizer.storage import open_storage, shown
from trialbus_services.reporter.report import write_report
from trialbus_services.settings import Bus, Report, Storage
from trialbus_services.signals import stop_event

logger = logging.getLogger(__name__)

_NAME = "reporter"
_TTL_S = 10.0
_TURN_S = 1.0
_FLUSH_S = 5.0


def run(bus: Bus, storage: Storage, report: Report) -> int:
    """Serve until SIGTERM or SIGINT and return the exit code.

    A study that finished while no reporter ran is reported when one runs again: what was asked
    for counts as done only once `report_ready` is in the log.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    stop = stop_event()
    with Link(bus.endpoint) as link:
        link.wait_connected(bus.connect_s)
        logger.info("reporter on %s, writing to %s", bus.endpoint, Path(report.dir).absolute())
        info = {"storage": shown(storage.url)}
        with Presence(link=link, kind="reporter", name=_NAME, ttl_s=_TTL_S, info=info):
            _serve(link, storage.url, report, stop)
    return 0


def _serve(link: Link, storage_url: str, report: Report, stop: threading.Event) -> None:
    with (
        subscribe(
            events.StudyFinished, name=_NAME, start="earliest", autocommit=False, link=link
        ) as inbox,
        Publisher(link=link) as publisher,
    ):
        while not stop.is_set():
            event = inbox.next(_TURN_S)
            if event is not None:
                publisher.publish(_report(event, storage_url, report))
                if publisher.flush(_FLUSH_S):
                    inbox.commit()


def _report(event: events.StudyFinished, storage_url: str, report: Report) -> events.ReportReady:
    """Write the report of a study; a study that cannot be reported does not end the service."""
    try:
        # Opened only now: by then the optimizer has made it.
        study = optuna.load_study(study_name=event.study, storage=open_storage(storage_url))
        paths = write_report(study, Path(report.dir).absolute(), options=report)
    except Exception as error:
        logger.exception("no report of study %r", event.study)
        return events.ReportReady(study=event.study, submission=event.submission, error=f"{error}")
    logger.info("reported study %r: %s", event.study, paths[0])
    return events.ReportReady(
        study=event.study, submission=event.submission, paths=[str(path) for path in paths]
    )
