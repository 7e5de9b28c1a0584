"""The optimizer's loop without a process: a log in memory, a simulated clock, real studies."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import msgspec
import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState

import trialbus
from trialbus.client.subscriber import Record
from trialbus.messages import codec, events
from trialbus.messages.topics import topic
from trialbus.study.spec import StudySpec
from trialbus_services.optimizer.attributes import END
from trialbus_services.optimizer.loop import OptimizerLoop
from trialbus_services.optimizer.prune_decider import PruneDecider
from trialbus_services.optimizer.sampling import Suggestion
from trialbus_services.optimizer.statistics import Statistics
from trialbus_services.optimizer.storage_writer import WriteBehind

SPEC = trialbus.StudySpec(
    name="s",
    params={"x": trialbus.FloatParam(low=0, high=1)},
    objectives=(trialbus.Objective(metric="loss", direction="minimize"),),
    n_trials=3,
    pruner=trialbus.Component(type="ThresholdPruner", args={"upper": 10}),
)

E = TypeVar("E", bound=events.Event)


class Clock:
    """A clock that stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Log:
    """The hub's log in memory: publisher, inbox and replay of one optimizer."""

    def __init__(self) -> None:
        self._records: list[Record] = []
        self.committed = 0
        self.offset: int | None = 0
        self.last = 0
        self.is_acknowledging = True
        #: Called with each event that the optimizer publishes.
        self.on_publish: Callable[[events.Event], object] = lambda event: None

    @property
    def end(self) -> int:
        return len(self._records)

    def append(self, *appended: events.Event) -> None:
        """Append events of other processes."""
        for event in appended:
            path = topic(
                str(event.__struct_config__.tag), event.study, getattr(event, "trial", None)
            )
            body = msgspec.Raw(codec.encode(event))
            self._records.append(Record(self.end, b"p", self.end + 1, path, body))

    def restart(self) -> None:
        """Let the next optimizer begin at the committed offset."""
        self.offset = self.committed

    def select(self, type_: type[E], study: str = "s") -> list[E]:
        """Return all events of a type and a study in the log."""
        selected = [record.event for record in self._records]
        return [event for event in selected if isinstance(event, type_) and event.study == study]

    @property
    def caught_up(self) -> bool:
        return self.offset == self.end

    def records(self, timeout_s: float | None = None) -> list[Record]:
        records = self._records[self.offset :]
        self.offset = self.end
        return [record for record in records if isinstance(record.event, OptimizerLoop.TYPES)]

    def commit(self, offset: int | None = None) -> bool:
        assert offset is not None
        self.committed = offset
        return True

    def publish(self, event: events.Event) -> int:
        self.on_publish(event)
        self.append(event)
        self.last = self.end
        return self.last

    def acknowledged(self, seq: int) -> bool:
        return self.is_acknowledging

    def __call__(
        self,
        *types: type[events.Event],
        study: str | None = None,
        start: int = 0,
        end: int | None = None,
    ) -> Iterator[Record]:
        for record in self._records[start:end]:
            event = record.event
            if isinstance(event, types) and study in (None, event.study):
                yield record


class PromptStorage(WriteBehind):
    """A write-behind storage that writes as soon as an announcement waits, unless held."""

    is_held = False

    def hurry(self) -> None:
        if not self.is_held:
            assert self.flush(20)


class Sampler:
    """A sampler in this process that suggests the same params each time."""

    alive = True
    exhausted = False
    error: str | None = None

    def __init__(
        self, spec: StudySpec, trials: Sequence[FrozenTrial], attrs: Mapping[str, Any]
    ) -> None:
        self._n_requested = 0

    def request(self) -> None:
        self._n_requested += 1

    def take(self) -> Suggestion | None:
        if not self._n_requested:
            return None
        self._n_requested -= 1
        space = {"x": FloatDistribution(0, 1)}
        return Suggestion(0, {"x": 0.5}, dict(space), {}, {}, {}, None)

    def claim(self, suggestion: Suggestion, number: int) -> None: ...
    def tell(
        self,
        number: int,
        state: TrialState,
        values: Sequence[float] | None,
        last: tuple[int, float] | None,
        constraints: Mapping[str, float] | None = None,
    ) -> None: ...
    def enqueue(self, trial: FrozenTrial) -> None: ...
    def close(self) -> None: ...


class Bus:
    """One optimizer's loop on a log."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.log = Log()
        self.database = InMemoryStorage()
        self.start()

    def start(self) -> None:
        """Start an optimizer on the log; of an earlier one, what is not recorded is lost."""
        self.storage = PromptStorage(self.database, interval_s=3600.0)
        self.log.restart()
        self.loop = OptimizerLoop(
            self.log,
            self.log,
            self.log,
            self.storage,
            committed=self.log.committed,
            start_sampler=Sampler,
            statistics=Statistics(),
            clock=self.clock,
            wall_clock=self.clock,
        )
        self.loop.recover()

    def turn(self, *appended: events.Event) -> None:
        """Append events and let the loop turn until nothing more follows."""
        self.log.append(*appended)
        end = -1
        while end != self.log.end:
            end = self.log.end
            self.clock.now += 1.0
            self.loop.turn()

    def submit(self, **changes: Any) -> None:
        """Submit a study."""
        spec = msgspec.structs.replace(SPEC, **changes)
        submitted = events.StudySubmitted(
            study=spec.name, spec=spec, submission="1", at=self.clock.now
        )
        self.turn(submitted)

    def request(self, request: str = "r", study: str = "s") -> events.TrialAssigned:
        """Request a trial and return the assignment."""
        self.turn(events.TrialRequested(study=study, request=request, session="w"))
        return self.log.select(events.TrialAssigned, study)[-1]

    def trials(self, study: str = "s") -> list[FrozenTrial]:
        """Return the trials that the database has."""
        assert self.storage.flush(20)
        return optuna.load_study(study_name=study, storage=self.database).trials

    def find_end(self, study: str = "s") -> str | None:
        """Return the end of a study that the database has."""
        return optuna.load_study(study_name=study, storage=self.database).user_attrs.get(END)


@pytest.fixture
def bus() -> Iterator[Bus]:
    simulated = Bus()
    yield simulated
    simulated.storage.is_held = False
    simulated.loop.close(20)


def evaluate(
    assigned: events.TrialAssigned, step: int, loss: float, attempt: int | None = None
) -> events.EvaluationComplete:
    return events.EvaluationComplete(
        study=assigned.study,
        trial=assigned.trial,
        attempt=assigned.attempt if attempt is None else attempt,
        step=step,
        metrics={"loss": loss},
    )


def complete(assigned: events.TrialAssigned) -> events.TrialFinished:
    return events.TrialFinished(
        study=assigned.study, trial=assigned.trial, attempt=assigned.attempt, state="complete"
    )


def test_a_request_gets_one_trial_however_often_it_is_read(bus: Bus) -> None:
    bus.submit()
    request = events.TrialRequested(study="s", request="r", session="w")
    bus.turn(request, request)
    bus.turn(request)
    bus.log.committed = 0
    bus.start()
    bus.turn(request)
    [assigned] = bus.log.select(events.TrialAssigned)
    assert assigned.params == {"x": 0.5}
    assert [trial.state for trial in bus.trials()] == [TrialState.RUNNING]
    bus.request("other")
    assert [event.trial for event in bus.log.select(events.TrialAssigned)] == [0, 1]


def test_a_trial_that_was_created_before_a_crash_and_not_handed_out_answers_the_request(
    bus: Bus,
) -> None:
    bus.submit()
    bus.storage.is_held = True
    bus.turn(events.TrialRequested(study="s", request="r", session="w"))
    assert bus.log.select(events.TrialAssigned) == []
    bus.storage.flush(20)
    bus.start()  # killed with the trial in the database and the assignment unpublished
    bus.turn()
    assert [event.trial for event in bus.log.select(events.TrialAssigned)] == [0]
    assert len(bus.trials()) == 1


def test_evaluations_of_an_attempt_that_was_given_up_change_nothing(bus: Bus) -> None:
    bus.submit(max_retries=1)
    first = bus.request("r1")
    bus.turn(evaluate(first, 0, 1.0), events.TrainerLost(session="w", kind="worker"))
    second = bus.request("r2")
    assert (second.trial, second.attempt) == (first.trial, 1)
    bus.turn(evaluate(first, 1, 99.0), evaluate(second, 0, 2.0), complete(first))
    assert bus.log.select(events.Prune) == []
    [trial] = bus.trials()
    assert trial.state is TrialState.RUNNING
    assert trial.intermediate_values == {0: 2.0}
    assert bus.loop.get_status().refused == {"its trial, or this attempt of it, does not run": 1}
    bus.turn(evaluate(second, 1, 99.0))
    assert [(event.attempt, event.step) for event in bus.log.select(events.Prune)] == [(1, 1)]


def test_a_study_whose_pruner_raises_ends_alone(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    decide = PruneDecider.decide

    def raise_for_one(
        self: PruneDecider, number: int, step: int, metrics: Mapping[str, float]
    ) -> str | None:
        if metrics["loss"] == 7.0:
            raise RuntimeError("no decision")
        return decide(self, number, step, metrics)

    monkeypatch.setattr(PruneDecider, "decide", raise_for_one)
    bus.submit(name="failing")
    bus.submit(n_trials=1)
    failing, trial = bus.request("r1", "failing"), bus.request("r2")
    bus.turn(evaluate(failing, 0, 7.0), evaluate(trial, 0, 1.0))
    [end] = bus.log.select(events.StudyFinished, "failing")
    assert (end.reason, end.error) == ("failed", "RuntimeError: no decision")
    assert bus.find_end("failing") == "failed"
    bus.turn(evaluate(failing, 1, 7.0), evaluate(trial, 1, 0.5), complete(trial))
    assert len(bus.log.select(events.StudyFinished, "failing")) == 1
    [end] = bus.log.select(events.StudyFinished)
    assert (end.reason, end.best_trials[0].values) == ("exhausted", [0.5])


def test_a_study_whose_sampler_fails_ends_alone(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    bus.submit(name="failing")
    monkeypatch.setattr(Sampler, "error", "no suggestion")
    bus.turn(events.TrialRequested(study="failing", request="r1", session="w"))
    monkeypatch.setattr(Sampler, "error", None)
    bus.submit()
    assert bus.request("r2").trial == 0
    [end] = bus.log.select(events.StudyFinished, "failing")
    assert (end.reason, end.error) == ("failed", "SamplerError: no suggestion")
    assert bus.log.select(events.StudyFinished) == []


def test_the_offset_is_committed_when_everything_before_it_is_recorded_and_acknowledged(
    bus: Bus,
) -> None:
    bus.submit()
    trial = bus.request()
    bus.storage.flush(20)
    bus.turn()
    committed = bus.log.committed
    assert committed > 0
    bus.storage.is_held = True
    bus.log.is_acknowledging = False
    bus.turn(evaluate(trial, 0, 1.0))
    bus.turn()
    assert bus.log.committed == committed, "not recorded"
    bus.storage.flush(20)
    bus.turn()
    assert bus.log.committed == committed, "not acknowledged"
    bus.log.is_acknowledging = True
    bus.turn()
    assert bus.log.committed > committed
    assert bus.trials()[0].intermediate_values == {0: 1.0}


def test_the_offset_of_a_request_is_committed_only_after_the_assignment_is_published(
    bus: Bus,
) -> None:
    bus.submit()
    bus.storage.flush(20)
    bus.turn()
    bus.storage.is_held = True
    requested_at = bus.log.end
    bus.turn(events.TrialRequested(study="s", request="r", session="w"))
    bus.turn()
    assert bus.log.committed <= requested_at
    bus.storage.flush(20)
    bus.turn()
    assert len(bus.log.select(events.TrialAssigned)) == 1
    assert bus.log.committed > requested_at


@pytest.mark.parametrize("is_recorded", [True, False])
def test_a_restart_in_the_middle_applies_nothing_twice(bus: Bus, is_recorded: bool) -> None:
    bus.submit(n_trials=2)
    first, second = bus.request("r1"), bus.request("r2")
    bus.storage.flush(20)
    bus.turn()
    assert bus.log.committed > 0
    bus.storage.is_held = True
    bus.log.is_acknowledging = False
    bus.turn(evaluate(first, 0, 3.0), evaluate(first, 1, 2.0), complete(first))
    if is_recorded:
        bus.storage.flush(20)
    bus.start()
    bus.log.is_acknowledging = True
    bus.turn(evaluate(second, 0, 99.0))
    bus.turn(evaluate(second, 1, 1.0), complete(second))
    trials = bus.trials()
    assert [trial.values for trial in trials] == [[2.0], [1.0]]
    assert trials[0].intermediate_values == {0: 3.0, 1: 2.0}
    assert [event.step for event in bus.log.select(events.Prune)] == [0]
    [end] = bus.log.select(events.StudyFinished)
    assert (end.reason, end.counts.complete) == ("exhausted", 2)


def test_an_evaluation_from_before_the_commit_counts_after_a_restart(bus: Bus) -> None:
    bus.submit(n_trials=1, objectives=(msgspec.structs.replace(SPEC.objectives[0]),))
    trial = bus.request()
    bus.turn(evaluate(trial, 0, 0.25))
    bus.storage.flush(20)
    bus.turn()
    assert bus.log.committed > bus.log.select(events.EvaluationComplete)[0].step
    bus.start()
    bus.turn(complete(trial))
    assert bus.trials()[0].values == [0.25]


def test_a_study_ends_at_its_timeout_and_waits_for_the_trial_that_runs(bus: Bus) -> None:
    bus.submit(timeout_s=100.0)
    trial = bus.request("r1")
    bus.clock.now += 50.0
    bus.turn(evaluate(trial, 0, 1.0))
    assert bus.log.select(events.StudyFinished) == []
    bus.clock.now += 50.0
    bus.turn(events.TrialRequested(study="s", request="r2", session="w"))
    assert len(bus.log.select(events.TrialAssigned)) == 1
    assert bus.log.select(events.StudyFinished) == []
    bus.turn(complete(trial))
    [end] = bus.log.select(events.StudyFinished)
    assert (end.reason, end.counts.complete) == ("timeout", 1)


def test_a_study_ends_when_a_trial_reaches_the_target(bus: Bus) -> None:
    bus.submit(target=0.5)
    for loss in (0.75, 0.5):
        assert bus.log.select(events.StudyFinished) == []
        trial = bus.request(f"request for {loss}")
        bus.turn(evaluate(trial, 0, loss), complete(trial))
    [end] = bus.log.select(events.StudyFinished)
    assert (end.reason, end.error) == ("converged", "0.5 reaches study.target=0.5")


@pytest.mark.parametrize("how", ["exhausted", "stopped", "failed"])
def test_a_study_is_declared_finished_only_when_the_storage_has_its_end(
    bus: Bus, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What launcher and runner rely on when they read the storage once, at `study_finished`."""
    ends: list[str | None] = []

    def read_end(event: events.Event) -> None:
        if isinstance(event, events.StudyFinished):
            ends.append(bus.find_end())

    bus.log.on_publish = read_end
    bus.submit(n_trials=1)
    if how == "exhausted":
        trial = bus.request()
        bus.turn(evaluate(trial, 0, 1.0), complete(trial))
    elif how == "stopped":
        bus.turn(events.Stop(study="s", reason="enough"))
    else:
        monkeypatch.setattr(Sampler, "error", "no suggestion")
        bus.turn(events.TrialRequested(study="s", request="r", session="w"))
    assert ends == [how]


def test_a_trial_is_handed_out_only_when_the_storage_has_it(bus: Bus) -> None:
    numbers: list[list[int]] = []

    def read_trials(event: events.Event) -> None:
        if isinstance(event, events.TrialAssigned):
            study = optuna.load_study(study_name="s", storage=bus.database)
            numbers.append([trial.number for trial in study.trials])

    bus.log.on_publish = read_trials
    bus.submit()
    bus.request()
    assert numbers == [[0]]
