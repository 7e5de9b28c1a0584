"""Studies that wait for the storage read the log in its order, as the others do."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from optuna.exceptions import StorageInternalError
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState

from support.simulated_bus import SimulatedBus
from trialbus.messages import events

_REOPEN_TURNS = 6  # of a second each


class Database(InMemoryStorage):
    """A storage that cannot be reached while `is_down`."""

    is_down = False

    def get_study_id_from_name(self, study_name: str) -> int:
        if self.is_down:
            raise StorageInternalError("no connection")
        return super().get_study_id_from_name(study_name)


@pytest.fixture
def bus() -> Iterator[SimulatedBus]:
    simulated = SimulatedBus(Database())
    yield simulated
    simulated.loop.close(20)


def restart_without_database(bus: SimulatedBus) -> None:
    assert isinstance(bus.database, Database)
    bus.database.is_down = True
    bus.start()
    bus.turn()


def reach_database(bus: SimulatedBus) -> None:
    assert isinstance(bus.database, Database)
    bus.database.is_down = False
    for _ in range(_REOPEN_TURNS):
        bus.turn()


@pytest.mark.parametrize(
    "end",
    [
        events.TrainerLost(session="w", kind="worker"),
        events.TrainerLost(study="s", session="w", kind="worker"),
        events.RequestWithdrawn(request="r"),
    ],
    ids=["lost", "lost-of-the-study", "withdrawn"],
)
def test_a_trial_that_completed_before_its_worker_ended_is_complete(
    bus: SimulatedBus, end: events.Event
) -> None:
    bus.submit(n_trials=2)
    assigned = bus.request("r")
    restart_without_database(bus)
    bus.turn(
        events.EvaluationComplete(study="s", trial=0, step=0, metrics={"loss": 1.0}),
        events.TrialFinished(study="s", trial=0, attempt=assigned.attempt, state="complete"),
        end,
        events.TrialRequested(study="s", request="r2", session="v"),
    )
    reach_database(bus)
    assert [trial.state for trial in bus.trials()] == [TrialState.COMPLETE, TrialState.RUNNING]
    assert [e.trial for e in bus.log.select(events.TrialAssigned)] == [0, 1]


def test_a_trial_of_another_study_is_handed_out_again_at_once(bus: SimulatedBus) -> None:
    bus.submit()
    bus.request("r", session="w")
    restart_without_database(bus)
    assert isinstance(bus.database, Database)
    bus.database.is_down = False  # for the study that is submitted now
    bus.submit(name="other")
    bus.database.is_down = True
    bus.request("o1", "other", "w")
    bus.turn(events.TrainerLost(session="w", kind="worker"))
    again = bus.request("o2", "other", "v")
    assert (again.trial, again.attempt) == (0, 1)
    reach_database(bus)
    once_more = bus.request("r2", session="v")
    assert (once_more.trial, once_more.attempt) == (0, 1)
