"""The optimizer's loop without a process: a log in memory, a simulated clock, real studies."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import msgspec
import optuna
from optuna.distributions import FloatDistribution
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.trial import FrozenTrial

import trialbus
from trialbus.client.subscriber import Record
from trialbus.messages import codec, events
from trialbus.messages.topics import make_topic
from trialbus.study.spec import StudySpec
from trialbus_services.optimizer.allowed_modules import AllowedModules
from trialbus_services.optimizer.attributes import END
from trialbus_services.optimizer.bus import BusClients, RequesterCheck
from trialbus_services.optimizer.loop import OptimizerLoop
from trialbus_services.optimizer.rebuilding import NoSampler
from trialbus_services.optimizer.sampling.messages import Suggestion
from trialbus_services.optimizer.status_collector import StatusCollector
from trialbus_services.optimizer.storage_writer.write_behind import WriteBehind
from trialbus_services.optimizer.trial_supply import StartSampler

SPEC = trialbus.StudySpec(
    name="s",
    params={"x": trialbus.FloatParam(low=0, high=1)},
    objectives=(trialbus.Objective(metric="loss", direction="minimize"),),
    n_trials=3,
    pruner=trialbus.Component(type="ThresholdPruner", args={"upper": 10}),
)

E = TypeVar("E", bound=events.Event)


class Clock:
    """A clock that only a test advances."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class SimulatedLog:
    """The hub's log in memory: publisher, inbox and replay of an optimizer."""

    def __init__(self) -> None:
        self._records: list[Record] = []
        self._gone: set[int] = set()
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
            path = make_topic(
                str(event.__struct_config__.tag), event.study, getattr(event, "trial", None)
            )
            body = msgspec.Raw(codec.encode(event))
            self._records.append(Record(self.end, b"p", self.end + 1, path, body))

    def forget(self, kept: tuple[type[events.Event], ...], end: int) -> None:
        """Remove all events before an offset but those of some types."""
        self._gone |= {
            record.offset for record in self._records[:end] if not isinstance(record.event, kept)
        }

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
            if record.offset in self._gone:
                continue
            if isinstance(event, types) and study in (None, event.study):
                yield record


class PromptStorage(WriteBehind):
    """A write-behind storage that writes as soon as an announcement waits, unless held."""

    is_held = False

    def request_write(self) -> None:
        if not self.is_held:
            assert self.flush(20)


class Sampler(NoSampler):
    """A sampler in this process that suggests the same params each time."""

    def __init__(
        self, spec: StudySpec, trials: Sequence[FrozenTrial], attrs: Mapping[str, Any]
    ) -> None:
        super().__init__(spec, trials, attrs)
        self._n_requested = 0

    def request(self) -> None:
        self._n_requested += 1

    def take_suggestion(self) -> Suggestion | None:
        if not self._n_requested:
            return None
        self._n_requested -= 1
        space = {"x": FloatDistribution(0, 1)}
        return Suggestion(0, {"x": 0.5}, dict(space), {}, {}, {}, None)


class SimulatedBus:
    """The loop of an optimizer on a log.

    Args:
        database: Storage of the optimizer; None for a storage in memory.
        allowed: Modules from which the classes of pruners may be imported.
        requesters: Checks which requesters the hub does not know; None for no check.
        start_sampler: Starts the sampler of a study.
    """

    def __init__(
        self,
        database: BaseStorage | None = None,
        allowed: AllowedModules | None = None,
        *,
        requesters: RequesterCheck | None = None,
        start_sampler: StartSampler = Sampler,
    ) -> None:
        self.allowed = allowed
        self._requesters = requesters
        self._start_sampler = start_sampler
        self.clock = Clock()
        self.log = SimulatedLog()
        self.database: BaseStorage = InMemoryStorage() if database is None else database
        self.start()

    def start(self) -> None:
        """Start an optimizer on the log; unrecorded changes of an earlier optimizer are lost."""
        self.storage = PromptStorage(self.database, interval_s=None)
        self.log.restart()
        self.loop = OptimizerLoop(
            BusClients(self.log, self.log, self.log, self.log.committed, self._requesters),
            self.storage,
            start_sampler=self._start_sampler,
            collector=StatusCollector(),
            allowed=self.allowed,
            clock=self.clock,
            wall_clock=self.clock,
        )
        self.loop.recover()

    def turn(self, *appended: events.Event) -> None:
        """Append events and let the loop turn until no event follows."""
        self.log.append(*appended)
        end = -1
        while end != self.log.end:
            end = self.log.end
            self.clock.now += 1.0
            self.loop.turn()

    def submit(self, submission: str = "1", **changes: Any) -> None:
        """Submit a study."""
        spec = msgspec.structs.replace(SPEC, **changes)
        submitted = events.StudySubmitted(
            study=spec.name, spec=spec, submission=submission, at=self.clock.now
        )
        self.turn(submitted)

    def request(
        self, request: str = "r", study: str = "s", session: str = "w"
    ) -> events.TrialAssigned:
        """Request a trial and return the assignment."""
        self.turn(events.TrialRequested(study=study, request=request, session=session))
        return self.log.select(events.TrialAssigned, study)[-1]

    def trials(self, study: str = "s") -> list[FrozenTrial]:
        """Return the trials that the database has."""
        assert self.storage.flush(20)
        return optuna.load_study(study_name=study, storage=self.database).trials

    def find_end(self, study: str = "s") -> str | None:
        """Return the end of a study that the database has."""
        return optuna.load_study(study_name=study, storage=self.database).user_attrs.get(END)
