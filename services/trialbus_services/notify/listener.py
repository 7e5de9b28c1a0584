"""Listeners: threads that feed notifiers from the log, each under a durable name."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Generator, Iterator, Mapping

import msgspec

from trialbus.client.link import Link
from trialbus.client.subscriber import Subscriber, replay, subscribe
from trialbus.errors import HubUnavailableError, TrialbusError
from trialbus.messages import events
from trialbus_services.notify.notice import Notice, Notifier, create_notice
from trialbus_services.process.error_text import describe_error

logger = logging.getLogger(__name__)

_FETCH_S = 0.5
_COMMIT_S = 1.0
_FIRST_S = 1.0
_LONGEST_S = 300.0
_PATIENCE = 4  # the first waits, up to so many times the very first, are waited out in any case
_GIVE_UP_S = 86_400.0
_GRACE_S = 12.0


class Listener:
    """Thread that calls a notifier for every `report_ready`, until `stop` is set.

    Each listener has a thread, so that a notifier that hangs delays no other. A notice that fails
    is tried again after 1 s, 2 s, 4 s and so on up to five minutes, for a day; the hub keeps the
    offset, so that the tries go on after a restart. A notice may come twice when the process ends
    between the call of the notifier and the commit.

    Args:
        name: Part of the durable name `notify-<name>`; a new name begins with the next event.
        notifier: Called in the thread.
        link: Connection to the hub.
        stop: Ends the thread; notices in the log by then are tried for some more seconds.
        first_s: Seconds before the second try.
        give_up_s: Seconds after which a notice that fails is skipped.
    """

    def __init__(
        self,
        name: str,
        notifier: Notifier,
        *,
        link: Link,
        stop: threading.Event,
        first_s: float = _FIRST_S,
        give_up_s: float = _GIVE_UP_S,
    ) -> None:
        self._name = name
        self._notifier = notifier
        self._link = link
        self._stop = stop
        self._first_s = first_s
        self._patient_s = _PATIENCE * first_s
        self._give_up_s = give_up_s
        self._thread = threading.Thread(target=self._run, name=f"notify-{name}", daemon=True)
        self._thread.start()

    def join(self, timeout_s: float | None = None) -> None:
        """Wait for the thread to end."""
        self._thread.join(timeout_s)

    def _run(self) -> None:
        try:
            with subscribe(
                events.ReportReady, name=f"notify-{self._name}", autocommit=False, link=self._link
            ) as inbox:
                self._register(inbox)
                self._serve(inbox)
        except TrialbusError as error:
            logger.error("notify.%s ends: %s", self._name, error)  # noqa: TRY400 - says it all

    def _register(self, inbox: Subscriber[events.ReportReady]) -> None:
        """Commit a first offset, so that the hub keeps the position of this durable name."""
        while not self._stop.is_set():
            with contextlib.suppress(HubUnavailableError):
                inbox.commit(inbox.wait_ready(_FETCH_S))
                return

    def _serve(self, inbox: Subscriber[events.ReportReady]) -> None:
        while True:
            event = inbox.next(_FETCH_S)
            if event is not None and self._deliver(event):
                inbox.commit(wait_s=_COMMIT_S)
            elif event is not None or self._stop.is_set():
                return

    def _deliver(self, event: events.ReportReady) -> bool:
        """Deliver a notice; return False if `stop` was set before the notifier succeeded."""
        wait_s = self._first_s
        while True:
            try:
                self._notifier(self._create_notice(event))
            except Exception as error:  # noqa: BLE001 - a notifier may fail in any way
                if time.time() - event.at > self._give_up_s:
                    logger.error(  # noqa: TRY400 - the traceback says no more
                        "notify.%s: gave up study %r after %g s: %s",
                        *(self._name, event.study, self._give_up_s, describe_error(error)),
                    )
                    return True
                logger.warning(
                    "notify.%s: %s; trying again in %g s",
                    self._name,
                    describe_error(error),
                    wait_s,
                )
            else:
                logger.info("notify.%s: sent the notice of study %r", self._name, event.study)
                return True
            if wait_s <= self._patient_s:
                time.sleep(wait_s)
            elif self._stop.wait(wait_s):
                return False
            wait_s = min(2 * wait_s, _LONGEST_S)

    def _create_notice(self, event: events.ReportReady) -> Notice:
        return create_notice(event, _replay_study(self._link, event.study))


@contextlib.contextmanager
def run_listeners(
    notifiers: Mapping[str, Notifier], link: Link, stop: threading.Event
) -> Generator[None]:
    """Run a listener for each notifier inside the block; wait for pending notices at the end."""
    listeners = [
        Listener(name, notifier, link=link, stop=stop) for name, notifier in notifiers.items()
    ]
    try:
        yield
    finally:
        stop.set()
        deadline = time.monotonic() + _GRACE_S
        for listener in listeners:
            listener.join(max(0.0, deadline - time.monotonic()))


def _replay_study(link: Link, study: str) -> Iterator[events.Event]:
    for record in replay(events.StudyStarted, events.StudyFinished, study=study, link=link):
        with contextlib.suppress(msgspec.DecodeError):
            if isinstance(record.event, events.Event):
                yield record.event
