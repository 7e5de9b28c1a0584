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
        #: Studies and numbers of trials whose verdict or next attempt was held back, since the
        #: trial had ended in the storage before.
        self._ended: set[tuple[str, int]] = set()

    def retract_void(self) -> None:
        """Retract the assignments that were held back, and keep the trials for `settle`."""
        for event, request in self._announcer.void:
            match event:
                case events.TrialAssigned():
                    if request is not None:
                        self._ledger.retract(event, request)
                    # The number of a trial that is new may be that of another program's trial.
                    if event.attempt > 0:
                        self._ended.add((event.study, event.trial))
                case events.TrialClosed():
                    self._ended.add((event.study, event.trial))
                case _:
                    pass
        self._announcer.void.clear()

    def settle(self, study: RunningStudy) -> None:
        """Tell trainings of ended trials to stop, and announce the verdicts that are recorded.

        Args:
            study: The study, loaded again from the storage.
        """
        for prune in study.build_prunes(_ENDED, ended=True):
            self._announcer.announce(prune)
        for name, number in sorted(self._ended):
            if name == study.spec.name and study.has_ended(number):
                self._ended.remove((name, number))
                self._announcer.announce(study.read_verdict(number))
