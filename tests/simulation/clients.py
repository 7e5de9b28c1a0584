"""Clients of a simulation: publishers, subscribers and sessions, with the real parts of a link."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TypeAlias

import msgspec

from simulation.log_model import LogModel
from simulation.network import Network, SimulatedLink
from simulation.world import World
from trialbus.client.fetcher import Fetcher, Start
from trialbus.client.outbox import Outbox
from trialbus.client.part_driver import Send
from trialbus.client.presence import Presence
from trialbus.client.sender import Sender
from trialbus.protocol import frames
from trialbus.protocol.frames import Record

_CAPACITY = 200
_MAX_BURST = 12

#: Secret of a publisher, and the events of its shared memory with the number of the newest.
Ring: TypeAlias = tuple[bytes, list[tuple[str, bytes]], int]


class Observer:
    """A part that shows each frame of the hub to a check.

    Args:
        on_frame: Called with every frame.
    """

    def __init__(self, on_frame: Callable[[frames.ToClient], object]) -> None:
        self._on_frame = on_frame

    def on_welcome(self, welcome: frames.Welcome) -> None: ...

    def on_frame(self, frame: frames.ToClient) -> None:
        self._on_frame(frame)

    def work(self, send: Send, now: float) -> float | None:
        return None

    def on_close(self) -> None: ...


class PublisherProcess:
    """A process that publishes, and sends what dead publishers left in shared memory.

    Args:
        world: The world.
        network: Network of the process.
        model: Takes note of what is published.
        secret: Secret of the publisher.
        rings: What dead publishers left on this host.
        topics: Topics of the events.
    """

    def __init__(
        self,
        world: World,
        network: Network,
        model: LogModel,
        secret: bytes,
        *,
        rings: deque[Ring],
        topics: list[str],
    ) -> None:
        self._world = world
        self._model = model
        self._rings = rings
        self._topics = topics
        self._adopted: list[tuple[bytes, Outbox, list[tuple[str, bytes]]]] = []
        self.secret = secret
        self.outbox = Outbox(_CAPACITY)
        self.link = SimulatedLink(network)
        self._is_dead = False
        self.link.attach(Sender(secret, self.outbox))
        self.link.attach(Observer(self._check_frame))
        world.call_in(world.seconds(0, 1), self._publish)

    @property
    def n_pending(self) -> int:
        return len(self.outbox) + sum(len(outbox) for _, outbox, _ in self._adopted)

    def kill(self) -> None:
        """Kill the process; its shared memory stays."""
        self._is_dead = True
        self.link.kill()
        accepted = self._model.accepted.get(frames.derive_publisher_id(self.secret), [])
        for secret, outbox, events in (*self._adopted, (self.secret, self.outbox, accepted)):
            if len(outbox):
                self._rings.append((secret, events[len(events) - len(outbox) :], outbox.last))

    def publish(self, topic: str) -> None:
        """Publish an event; where the outbox is full, nothing is accepted."""
        body = msgspec.msgpack.encode({"n": self._world.n_steps})
        if self.outbox.put(topic, body) is not None:
            self._model.accept(self.secret, topic, body)

    def _publish(self) -> None:
        if self._is_dead:
            return
        world = self._world
        while self._rings:
            secret, events, last = self._rings.popleft()
            outbox = Outbox(len(events), None, events, last=last)
            self._adopted.append((secret, outbox, events))
            self.link.attach(Sender(secret, outbox))
        if not world.is_calm:
            for _ in range(world.random.randrange(_MAX_BURST)):
                self.publish(world.random.choice(self._topics))
        self.link.wake()
        world.call_in(world.seconds(0.05, 1.5), self._publish)

    def _check_frame(self, frame: frames.ToClient) -> None:
        if isinstance(frame, frames.Ack):
            self._model.check_acknowledgement(frame.publisher, frame.last)


class SubscriberProcess:
    """A process that reads events, and checks that it gets each exactly once and in order.

    Args:
        world: The world.
        network: Network of the process.
        model: Has what is in the log.
        patterns: Patterns of the subscription.
        name: Durable name; None for a subscriber without.
        handled: Offset up to which earlier processes of the name have read.
        committed: Offset that an earlier process of the name knows to be committed.
    """

    def __init__(
        self,
        world: World,
        network: Network,
        model: LogModel,
        patterns: list[str],
        name: str | None = None,
        *,
        handled: int = 0,
        committed: int = 0,
    ) -> None:
        self._world = world
        self._model = model
        self.patterns = frozenset(patterns)
        self.name = name
        self.handled = handled
        self.committed = committed
        self.position: int | None = None  #: offset after the last record that was read
        self._is_dead = False
        self._is_due = False
        self._committing: int = -1
        self.link = SimulatedLink(network)
        start: Start = "earliest"
        self.fetcher = Fetcher(self.link, patterns, start, name)
        self.fetcher.on_arrival = self._schedule
        self.link.attach(self.fetcher)
        self.link.attach(Observer(self._note_commit))
        if name is not None:
            world.call_in(world.seconds(0.2, 2.0), self._commit)

    @property
    def is_done(self) -> bool:
        """Whether every event was read, and committed under a durable name."""
        end = self._model.end
        return (
            self.fetcher.position == end
            and not self.fetcher.available
            and (self.name is None or self.committed == end)
        )

    def kill(self) -> None:
        self._is_dead = True
        self.link.kill()

    def _schedule(self) -> None:
        if not self._is_due:
            self._is_due = True
            self._world.call_in(self._world.seconds(0, 0.3), self._read)

    def _read(self) -> None:
        self._is_due = False
        if self._is_dead:
            return
        while batch := self.fetcher.take_batch():
            self._check_batch(batch)

    def _check_batch(self, records: list[Record]) -> None:
        check = self._world.check
        if self.position is None:
            self.position = self._find_start(records[0].offset)
        stop = records[-1].offset + 1
        expected = [row.offset for row in self._model.matching(self.position, stop, self.patterns)]
        found = [record.offset for record in records]
        check(
            found == expected,
            f"a subscriber at {self.position} got {found} in place of {expected}",
        )
        for record in records:
            self._model.check_record(record)
        self.position = stop
        self.handled = max(self.handled, stop)

    def _find_start(self, first: int) -> int:
        """Return where this process begins: between what was committed and what was handled."""
        if self.name is None:
            return 0
        self._world.check(
            first >= self.committed, f"{self.name!r} got {first}, committed is {self.committed}"
        )
        return min(first, self.handled)

    def _commit(self) -> None:
        if self._is_dead:
            return
        offset = self.fetcher.skip_unmatched(self.position)
        if offset is not None and offset != self._committing:
            self._committing = offset
            if self.position is not None:
                self.position = offset
            self.handled = max(self.handled, offset)
            self.fetcher.commit(offset)
            self.link.wake()
        self._world.call_in(self._world.seconds(0.2, 2.0), self._commit)

    def _note_commit(self, frame: frames.ToClient) -> None:
        if isinstance(frame, frames.Committed) and frame.name == self.name:
            self.committed = max(self.committed, frame.offset)


class SessionProcess:
    """A process with a session.

    Args:
        world: The world.
        network: Network of the process.
        session: Id of the session.
    """

    def __init__(self, world: World, network: Network, session: str) -> None:
        self.session = session
        self.ttl_s = world.seconds(1.0, 5.0)
        self.link = SimulatedLink(network)
        self.is_alive = True
        self.was_seen = False
        self.is_ended = False  # by `bye`
        self.presence = Presence(
            link=self.link, kind="worker", name=session, ttl_s=self.ttl_s, session=session
        )
        self._world = world
        self.link.attach(Observer(self._check_frame))
        self.on_seen: Callable[[str], object] = lambda session: None
        world.call_in(world.seconds(1, 4), self._inform)

    def kill(self) -> None:
        self.is_alive = False
        self.link.kill()

    def close(self) -> None:
        """End the session in order."""
        self.is_ended = True
        self.presence.close()

    def _inform(self) -> None:
        if self.is_alive and not self.is_ended:
            self.presence.inform({"n": self._world.n_steps})
            self.link.wake()
            self._world.call_in(self._world.seconds(1, 4), self._inform)

    def _check_frame(self, frame: frames.ToClient) -> None:
        if isinstance(frame, frames.Seen) and frame.session == self.session:
            self.was_seen = True
            self.on_seen(self.session)
