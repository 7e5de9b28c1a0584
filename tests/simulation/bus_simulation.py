"""BusSimulation: a hub with publishers, subscribers, durable names and sessions under faults."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from pathlib import Path

import msgspec

from simulation.clients import PublisherProcess, Ring, SessionProcess, SubscriberProcess
from simulation.hub_process import HubProcess
from simulation.log_model import HUB, LogModel, Row
from simulation.network import Connection, Network, SimulatedLink
from simulation.world import World
from trialbus.hub.hub import Hub
from trialbus.messages import events

_N_PUBLISHERS, _N_SUBSCRIBERS, _N_SESSIONS = 3, 2, 3
_DURABLE = {"all": ["*/*/*"], "some": ["trial_finished/*/*", "*/s2/*"]}
_TOPICS = [
    f"{type_}/{study}/{trial}"
    for type_ in ("evaluation_complete", "trial_finished")
    for study in ("s1", "s2")
    for trial in (0, 1)
]
_FAULT_S = 0.25  # the longest between two faults
_CALM_S = 200.0  # in which everything has to come to rest


class BusSimulation:
    """One simulation: rough for a time, then calm until everything has arrived.

    Args:
        seed: Determines everything that happens.
        directory: An empty folder for the log.
        hub_class: The hub; a control has another.
    """

    def __init__(self, seed: int, directory: Path, hub_class: type[Hub] = Hub) -> None:
        self.world = World(seed)
        self.network = Network(self.world)
        self.model = LogModel(self.world, directory)
        self.hub = HubProcess(
            self.world,
            self.network,
            directory,
            after_turn=self._check_turn,
            hub_class=hub_class,
        )
        self._rings: deque[Ring] = deque()
        self._publishers: list[PublisherProcess] = []
        self._subscribers: list[SubscriberProcess] = []
        self._sessions: list[SessionProcess] = []
        self._lost: dict[str, None] = {}  # sessions, by the log
        self._n_started = 0
        for _ in range(_N_PUBLISHERS):
            self._start_publisher()
        for name, patterns in _DURABLE.items():
            self._start_subscriber(patterns, name, 0, 0)
        for _ in range(_N_SUBSCRIBERS):
            self._start_subscriber(["*/*/*"], None, 0, 0)
        for _ in range(_N_SESSIONS):
            self._start_session()

    def run(self, rough_s: float) -> None:
        """Simulate a time with faults and the time until everything is at rest.

        Raises:
            Violation: A guarantee was broken.
        """
        world = self.world
        end = world.now + rough_s
        world.call_in(world.seconds(0, _FAULT_S), self._inflict)
        while world.now < end:
            world.step()
        self._calm_down()
        while world.now < end + _CALM_S and not self._is_at_rest():
            for _ in range(100):
                world.step()
        self._check_rest()

    def close(self) -> None:
        """End the hub and close the files."""
        if self.hub.hub is not None:
            self.hub.hub.close()
        self.model.close()

    # --- faults ---

    def _inflict(self) -> None:
        world = self.world
        if world.is_calm:
            return
        fault: Callable[[], str] = world.random.choice(self._faults())
        world.count_fault(fault())
        world.call_in(world.seconds(0, _FAULT_S), self._inflict)

    def _faults(self) -> list[Callable[[], str]]:
        return [
            self._crash_hub,
            self._crash_hub_in_turn,
            self._crash_hub_in_turn,
            self._pause_hub,
            self._fail_statement,
            self._fail_disk,
            self._slow_disk,
            self._break_connection,
            self._break_connection,
            self._cut_off,
            self._delay,
            self._fill,
            self._pause_client,
            self._restart_publisher,
            self._restart_subscriber,
            self._restart_session,
            self._end_session,
        ]

    def _crash_hub(self) -> str:
        self.hub.crash(self.world.seconds(0, 3))
        return "hub crashed"

    def _crash_hub_in_turn(self) -> str:
        self.hub.disk.crash_after = self.world.random.randrange(1, 40)
        return "hub crashed in a turn"

    def _pause_hub(self) -> str:
        self.hub.stepper.pause(self.world.now + self.world.seconds(0.1, 6))
        return "hub paused"

    def _fail_statement(self) -> str:
        self.hub.disk.n_failing = 1
        return "statement failed"

    def _fail_disk(self) -> str:
        self.hub.disk.fails_until = self.world.now + self.world.seconds(0.1, 3)
        return "disk failed"

    def _slow_disk(self) -> str:
        self.hub.disk.slow_s = self.world.seconds(0.1, 4)
        return "disk stalled"

    def _break_connection(self) -> str:
        connection = self._any_connection()
        if connection is not None:
            connection.close()
        return "connection broken"

    def _cut_off(self) -> str:
        self._any_link().cut_off(self.world.seconds(0.1, 20))
        return "client cut off"

    def _delay(self) -> str:
        connection = self._any_connection()
        if connection is not None:
            connection.delay(self.world.seconds(0.1, 3))
        return "frames delayed"

    def _fill(self) -> str:
        connection = self._any_connection()
        if connection is not None:
            connection.is_full = True
            self.world.call_in(self.world.seconds(0.1, 2), lambda: _empty(connection))
        return "answers dropped"

    def _pause_client(self) -> str:
        self._any_link().stepper.pause(self.world.now + self.world.seconds(0.1, 8))
        return "client paused"

    def _restart_publisher(self) -> str:
        publisher = self.world.random.choice(self._publishers)
        self._publishers.remove(publisher)
        publisher.kill()
        self._start_publisher()
        return "publisher killed"

    def _restart_subscriber(self) -> str:
        subscriber = self.world.random.choice(self._subscribers)
        self._subscribers.remove(subscriber)
        subscriber.kill()
        self._start_subscriber(
            sorted(subscriber.patterns), subscriber.name, subscriber.handled, subscriber.committed
        )
        return "subscriber killed"

    def _restart_session(self) -> str:
        living = [session for session in self._sessions if session.is_alive]
        self.world.random.choice(living).kill()
        self._start_session()
        return "session killed"

    def _end_session(self) -> str:
        living = [session for session in self._sessions if session.is_alive]
        session = self.world.random.choice(living)
        session.close()
        self.world.call_in(self.world.seconds(0, 0.5), session.kill)
        session.is_alive = False
        self._start_session()
        return "session ended"

    def _any_link(self) -> SimulatedLink:
        living = [session for session in self._sessions if session.is_alive]
        return self.world.random.choice([*self._publishers, *self._subscribers, *living]).link

    def _any_connection(self) -> Connection | None:
        connections = list(self.network.connections.values())
        return self.world.random.choice(connections) if connections else None

    def _start_publisher(self) -> None:
        secret = b"publisher %d" % self._number()
        self._publishers.append(
            PublisherProcess(
                self.world, self.network, self.model, secret, rings=self._rings, topics=_TOPICS
            )
        )

    def _start_subscriber(
        self, patterns: list[str], name: str | None, handled: int, committed: int
    ) -> None:
        self._subscribers.append(
            SubscriberProcess(
                self.world,
                self.network,
                self.model,
                patterns,
                name,
                handled=handled,
                committed=committed,
            )
        )

    def _start_session(self) -> None:
        session = SessionProcess(self.world, self.network, f"session {self._number()}")
        session.on_seen = self._check_seen
        self._sessions.append(session)

    def _number(self) -> int:
        self._n_started += 1
        return self._n_started

    def _calm_down(self) -> None:
        """End all faults for good; what is dead stays dead until it is started again."""
        self.world.is_calm = True
        self.hub.disk.calm_down()

    # --- checks ---

    def _check_turn(self) -> None:
        for row in self.model.read():
            if row.publisher == HUB:
                self._check_lost(row)

    def _check_lost(self, row: Row) -> None:
        event = msgspec.msgpack.decode(row.body, type=events.TrainerLost)
        self.world.check(
            event.session not in self._lost, f"{event.session} was declared lost twice"
        )
        self._lost[event.session] = None

    def _check_seen(self, session: str) -> None:
        # The answer may have been on the way for long; what counts is a session that lives on.
        if session in self._lost:
            self.world.check(
                session not in self._find_sessions(),
                f"{session} lives after it was declared lost",
            )

    def _is_at_rest(self) -> bool:
        hub = self.hub.hub
        return (
            hub is not None
            and not self._rings
            and all(not publisher.n_pending for publisher in self._publishers)
            and all(subscriber.is_done for subscriber in self._subscribers)
            and self._find_sessions() == self._expected_sessions()
        )

    def _find_sessions(self) -> set[str]:
        hub = self.hub.hub
        return set() if hub is None else {s.session for s in hub.status().sessions}

    def _expected_sessions(self) -> set[str]:
        return {s.session for s in self._sessions if s.is_alive and not s.presence.lost}

    def _check_rest(self) -> None:
        check = self.world.check
        check(self.hub.hub is not None, "the hub does not start")
        check(not self._rings, "events of dead publishers are left")
        for publisher in self._publishers:
            check(
                not publisher.n_pending,
                f"{publisher.n_pending} events of {publisher.secret!r} do not arrive",
            )
        for publisher_id, accepted in self.model.accepted.items():
            check(
                self.model.last.get(publisher_id, 0) == len(accepted),
                "accepted events are not in the log",
            )
        for subscriber in self._subscribers:
            check(
                subscriber.is_done,
                f"subscriber {subscriber.name!r} stands at {subscriber.fetcher.position}, committed"
                f" {subscriber.committed}; the log ends at {self.model.end}",
            )
        found, expected = self._find_sessions(), self._expected_sessions()
        check(found <= expected, f"sessions without an owner: {sorted(found - expected)}")
        check(found == expected, f"sessions that the hub lacks: {sorted(expected - found)}")
        for session in self._sessions:
            if session.was_seen and session.session not in found and not session.is_ended:
                check(
                    session.session in self._lost,
                    f"{session.session} was lost, and nobody was told",
                )


def _empty(connection: Connection) -> None:
    connection.is_full = False
