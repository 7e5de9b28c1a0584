"""OtherPrograms: what follows for trials that another program added, began or ended meanwhile."""

from __future__ import annotations

from trialbus.messages import events
from trialbus_services.optimizer.announcer import Announcer
from trialbus_services.optimizer.ledger import Ledger
from trialbus_services.optimizer.running_study import RunningStudy

_ENDED = "another program has ended the trial"


class OtherPrograms:
    """Retracts what was not published about trials that another program turned out to have.

    A program with plain Optuna may work on the same study of the same storage. Its trials are left
    alone, and what it wrote is kept.

    Args:
        announcer: Announcer of the loop, which holds back the events about such trials.
        ledger: Ledger of the loop.
    """

    def __init__(self, announcer: Announcer, ledger: Ledger) -> None:
        self._announcer = announcer
        self._ledger = ledger
        #: Verdicts that the storage does not have, since the trial had ended there before.
        self._verdicts: list[events.TrialClosed] = []

    def retract_void(self) -> None:
        """Retract the assignments that were held back, and keep the verdicts for `settle`."""
        for event, request in self._announcer.void:
            if isinstance(event, events.TrialAssigned) and request is not None:
                self._ledger.retract(event, request)
            elif isinstance(event, events.TrialClosed):
                self._verdicts.append(event)
        self._announcer.void.clear()

    def settle(self, study: RunningStudy) -> None:
        """Tell trainings of ended trials to stop, and announce the verdicts that are recorded.

        Args:
            study: The study, loaded again from the storage.
        """
        for prune in study.build_prunes(_ENDED, ended=True):
            self._announcer.announce(prune)
        name = study.spec.name
        for verdict in [verdict for verdict in self._verdicts if verdict.study == name]:
            self._verdicts.remove(verdict)
            self._announcer.announce(study.read_verdict(verdict.trial))
