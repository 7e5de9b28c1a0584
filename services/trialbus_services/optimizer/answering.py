"""RequestAnswers: hands out trials to the requests that wait, or refuses the requests."""

from __future__ import annotations

import logging
from collections.abc import Callable

from trialbus.messages import events
from trialbus_services.optimizer.bus import BusClients
from trialbus_services.optimizer.running_studies import RunningStudies
from trialbus_services.optimizer.running_study import RunningStudy
from trialbus_services.optimizer.study_end import find_end

logger = logging.getLogger(__name__)


class RequestAnswers:
    """Answers requests for trials.

    Args:
        bus: Clients of the bus.
        studies: The running studies.
        clock: Monotonic clock, in seconds.
        wall_clock: Seconds since the epoch.
    """

    def __init__(
        self,
        bus: BusClients,
        studies: RunningStudies,
        *,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
    ) -> None:
        self._inbox = bus.inbox
        self._publisher = bus.publisher
        self._requesters = bus.requesters
        self._ledger = studies.ledger
        self._announcer = studies.announcer
        self._studies = studies
        self._clock = clock
        self._wall_clock = wall_clock
        self._requested_at: dict[str, float] = {}

    def note_request(self, request: str) -> None:
        """Note the time of a request, from which the latency of the answer is counted."""
        self._requested_at[request] = self._clock()

    def forget_answered(self) -> None:
        """Forget the times of requests that wait no more."""
        self._requested_at = {
            request: at
            for request, at in self._requested_at.items()
            if request in self._ledger.requests
        }

    def answer(self) -> None:
        """Hand out trials to the requests that wait, and refuse requests of ended studies."""
        for refused in self._ledger.find_refused():
            self._ledger.apply(refused, self._inbox.offset or 0)
            self._announcer.announce(refused)
        waiting = list(self._ledger.requests.values())
        if not waiting:
            return
        for name, study in list(self._studies.items()):
            n_waiting = sum(request.study in (name, "") for request in waiting)
            with self._studies.guard(study):
                if self._is_handing_out(study):
                    study.request_suggestions(n_waiting)
        for request in waiting:
            for name in [request.study] if request.study else list(self._studies):
                if study := self._studies.get(name):
                    with self._studies.guard(study):
                        self._assign(study, request)
                if request.request not in self._ledger.requests:
                    break

    def check_requesters(self) -> None:
        """Declare requesters lost that the hub does not know, so that their trials run again."""
        check = self._requesters
        if check is None:
            return
        if unknown := check.take_unknown():
            requesters = self._ledger.list_requesters()
            for session in unknown:
                logger.warning(
                    "the hub does not know session %s: what it requested is void", session
                )
                for study in requesters.get(session, ()):
                    self._publisher.publish(
                        events.TrainerLost(study=study, session=session, kind="worker")
                    )
        if check.is_due:
            check.ask(self._ledger.list_requesters())

    def _assign(self, study: RunningStudy, request: events.TrialRequested) -> None:
        if not self._is_handing_out(study):
            return
        assigned = study.assign(request, self._wall_clock())
        for verdict in study.take_reused():
            self._announcer.announce(verdict, hurry=False)
        if assigned is not None:
            self._ledger.decide(assigned, self._inbox.offset or 0)
            self._announcer.announce(
                assigned,
                self._requested_at.pop(request.request, None),
                request=request,
                trial_id=study.get_trial_id(assigned.trial),
            )

    def _is_handing_out(self, study: RunningStudy) -> bool:
        return not study.state.is_paused and find_end(study, self._wall_clock()) is None
