"""Clients of a study in a simulation: the optimizer with its real loop, workers and a submitter."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from optuna.storages import InMemoryStorage

from simulation.clients import Ring
from simulation.hub_process import HubProcess
from simulation.log_model import LogModel
from simulation.network import Network, SimulatedLink
from simulation.world import World
from support.simulated_bus import Sampler
from trialbus.client.fetcher import Fetcher
from trialbus.client.outbox import Outbox
from trialbus.client.presence import Presence
from trialbus.client.sender import Sender
from trialbus.errors import HubUnavailableError, TrialbusError
from trialbus.messages import codec, events
from trialbus.messages.hand_outs import HandOuts
from trialbus.messages.topics import make_pattern
from trialbus.protocol.frames import Record
from trialbus_services.optimizer.bus import BusClients
from trialbus_services.optimizer.loop import OptimizerLoop
from trialbus_services.optimizer.session_check import SessionCheck
from trialbus_services.optimizer.status_collector import StatusCollector
from trialbus_services.optimizer.storage_writer.write_behind import WriteBehind

_CAPACITY = 10_000
_TTL_S = 4.0


class Host:
    """What the processes of one machine share: the shared memory of dead publishers."""

    def __init__(self) -> None:
        self.rings: deque[Ring] = deque()


class SimulatedPublisher:
    """A publisher on a link, whose unsent events outlive the process."""

    def __init__(self, link: SimulatedLink, host: Host, secret: bytes) -> None:
        self._link = link
        self._host = host
        self._events: list[tuple[str, bytes]] = []
        self._secret = secret
        self._adopted: list[tuple[bytes, Outbox, list[tuple[str, bytes]]]] = []
        self.outbox = Outbox(_CAPACITY)
        link.attach(Sender(secret, self.outbox))

    @property
    def n_pending(self) -> int:
        return len(self.outbox) + sum(len(outbox) for _, outbox, _ in self._adopted)

    @property
    def last(self) -> int:
        return self.outbox.last

    def publish(self, event: events.Event) -> int:
        topic, body = event.topic, codec.encode(event)
        seq = self.outbox.put(topic, body)
        assert seq is not None
        self._events.append((topic, body))
        self._link.wake()
        return seq

    def acknowledged(self, seq: int) -> bool:
        return self.outbox.base > seq

    def adopt(self) -> None:
        """Send what dead publishers left in shared memory."""
        while self._host.rings:
            secret, left, last = self._host.rings.popleft()
            outbox = Outbox(len(left), None, left, last=last)
            self._adopted.append((secret, outbox, left))
            self._link.attach(Sender(secret, outbox))

    def leave(self) -> None:
        """Leave the unsent events in shared memory."""
        for secret, outbox, published in (
            *self._adopted,
            (self._secret, self.outbox, self._events),
        ):
            if len(outbox):
                left = published[len(published) - len(outbox) :]
                self._host.rings.append((secret, left, outbox.last))


class SimulatedInbox:
    """Reads records as `trialbus.Subscriber.records` does."""

    def __init__(self, fetcher: Fetcher, link: SimulatedLink) -> None:
        self._fetcher = fetcher
        self._link = link
        self.offset: int | None = None

    @property
    def caught_up(self) -> bool:
        return self._fetcher.position >= self._fetcher.log_end and not self._fetcher.available

    def records(self, timeout_s: float | None = None) -> list[Record]:
        records = self._fetcher.take_batch()
        if records:
            self.offset = records[-1].offset + 1
        return records

    def commit(self, offset: int | None = None) -> bool:
        assert offset is not None
        self._fetcher.commit(offset)
        self._link.wake()
        return False


class SimulatedStorage(WriteBehind):
    """A write-behind storage that fails for a time."""

    def __init__(self, world: World, backend: InMemoryStorage) -> None:
        self.fails_until = 0.0
        self._world = world
        super().__init__(backend, interval_s=None)

    def write_pending(self) -> bool:
        return self._world.now >= self.fails_until and super().write_pending()


class OptimizerProcess:
    """The optimizer: connects, takes over, recovers, and takes turns until it dies."""

    def __init__(
        self,
        world: World,
        network: Network,
        hub: HubProcess,
        *,
        model: LogModel,
        backend: InMemoryStorage,
        host: Host,
        number: int,
    ) -> None:
        self._world = world
        self._hub = hub
        self._model = model
        self.link = SimulatedLink(network)
        self.publisher = SimulatedPublisher(self.link, host, b"optimizer %d" % number)
        self.is_dead = False
        self.storage = SimulatedStorage(world, backend)
        self._loop: OptimizerLoop | None = None
        self._presence = Presence(
            link=self.link,
            kind="optimizer",
            name="optimizer",
            ttl_s=_TTL_S,
            exclusive=True,
            session=f"optimizer {number}",
        )
        self._fetcher: Fetcher | None = None
        world.call_in(0.1, self._step)

    def kill(self) -> None:
        self.is_dead = True
        self.publisher.leave()
        self.link.kill()

    def _step(self) -> None:
        if self.is_dead:
            return
        try:
            self._work()
        except TrialbusError:
            self._world.note("optimizer ends")
            self.kill()
        else:
            self._world.call_in(self._world.seconds(0.02, 0.4), self._step)

    def _work(self) -> None:
        if self._presence.lost:
            raise TrialbusError("lost")
        if self._loop is not None:
            if self._world.chance(0.1):  # at any time, perhaps long after this optimizer began
                self.publisher.adopt()
            self.storage.write_pending()
            self._loop.turn()
        elif self._fetcher is None:
            if not self._presence.is_registered:
                return  # not yet
            patterns = [
                make_pattern(str(type_.__struct_config__.tag)) for type_ in OptimizerLoop.TYPES
            ]
            self._fetcher = Fetcher(self.link, patterns, "earliest", "optimizer")
            self.link.attach(self._fetcher)
        else:
            committed = self._fetcher.wait_ready(0.0)
            if committed is not None:
                self._begin(self._fetcher, committed)

    def _begin(self, fetcher: Fetcher, committed: int) -> None:
        inbox = SimulatedInbox(fetcher, self.link)
        inbox.offset = committed
        self._loop = OptimizerLoop(
            BusClients(
                inbox,
                self.publisher,
                self._replay,
                committed,
                SessionCheck(self.link, clock=self._world.clock),
            ),
            self.storage,
            start_sampler=Sampler,
            collector=StatusCollector(),
            clock=self._world.clock,
            wall_clock=self._world.wall_clock,
        )
        self._loop.recover()

    def _replay(
        self,
        *types: type[events.Event],
        study: str | None = None,
        start: int = 0,
        end: int | None = None,
    ) -> Iterator[Record]:
        if self._hub.hub is None or self.link.connection is None:
            raise HubUnavailableError(self.link.endpoint, 10.0)
        patterns = frozenset(make_pattern(str(t.__struct_config__.tag), study) for t in types)
        for row in self._model.matching(start, self._model.end if end is None else end, patterns):
            yield Record(row.offset, row.publisher, row.seq, row.topic, msgspec.Raw(row.body))


class WorkerProcess:
    """A worker with one slot: requests a trial, reports, and says how the trial ended."""

    def __init__(
        self,
        world: World,
        network: Network,
        host: Host,
        number: int,
        on_begin: Callable[[events.TrialAssigned], object],
    ) -> None:
        self._world = world
        self._number = number
        self._on_begin = on_begin
        self._n_requests = 0
        self._request: str | None = None
        self._trial: events.TrialAssigned | None = None
        self._step_number = 0
        self._hand_outs = HandOuts()
        self.is_dead = False
        self.link = SimulatedLink(network)
        self.presence = Presence(
            link=self.link,
            kind="worker",
            name=f"w{number}",
            ttl_s=world.seconds(1, 4),
            session=f"worker {number}",
        )
        self.publisher = SimulatedPublisher(self.link, host, b"worker %d" % number)
        patterns = [make_pattern("trial_assigned"), make_pattern("trainer_lost")]
        self._fetcher = Fetcher(self.link, patterns, "now", None)
        self.link.attach(self._fetcher)
        world.call_in(world.seconds(0, 1), self._step)

    def kill(self) -> None:
        self.is_dead = True
        self.publisher.leave()
        self.link.kill()

    def _step(self) -> None:
        if self.is_dead:
            return
        self.publisher.adopt()
        if self.presence.lost:
            self._world.note("worker ends")
            if self._request is not None:
                self.publisher.publish(events.RequestWithdrawn(request=self._request))
            self.kill()
            return
        self._read()
        self._work()
        self._world.call_in(self._world.seconds(0.05, 0.6), self._step)

    def _read(self) -> None:
        while records := self._fetcher.take_batch():
            for record in records:
                event = record.event
                if isinstance(event, events.TrialAssigned) and self._hand_outs.add(event):
                    if event.request == self._request:
                        self._request, self._trial, self._step_number = None, event, 0
                        self._on_begin(event)
                    elif self._is_over(event):
                        self._trial = None

    def _is_over(self, event: events.TrialAssigned) -> bool:
        trial = self._trial
        return (
            trial is not None
            and (event.study, event.trial) == (trial.study, trial.trial)
            and event.attempt > trial.attempt
        )

    def _work(self) -> None:
        publish, trial = self.publisher.publish, self._trial
        if trial is None:
            if self._request is None and self._is_ready():
                self._n_requests += 1
                self._request = f"{self._number}.{self._n_requests}"
                session = self.presence.session
                publish(events.TrialRequested(request=self._request, session=session))
            return
        common: dict[str, Any] = {
            "study": trial.study,
            "trial": trial.trial,
            "attempt": trial.attempt,
        }
        if self._step_number < 3:
            value = self._world.random.random()
            publish(
                events.EvaluationComplete(**common, step=self._step_number, metrics={"loss": value})
            )
            self._step_number += 1
            return
        state = self._world.random.choice(["complete", "complete", "complete", "failed"])
        publish(
            msgspec.convert(
                {**common, "type": "trial_finished", "state": state}, events.TrialFinished
            )
        )
        self._trial = None

    def _is_ready(self) -> bool:
        """Return whether answers would be noticed, and the loss of this process as well."""
        return self.presence.is_registered and self._fetcher.wait_ready(0.0) is not None
