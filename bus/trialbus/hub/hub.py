"""Hub: the process between publishers and subscribers.

One ROUTER socket, one thread, one loop. Each turn reads the messages that have arrived, writes
their changes to the log in one transaction, and only then acknowledges and delivers them. A turn
is bounded in frames, bytes and time spent reading, so no peer can make the others wait for long.

`python -m trialbus.hub --help` runs one with nothing but the core dependencies installed.
"""

from __future__ import annotations

import logging
import os
import socket
import sqlite3
import time
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path
from typing import assert_never

import msgspec
import zmq

from trialbus.errors import TrialbusError
from trialbus.hub.acknowledgements import Acknowledgements
from trialbus.hub.durable_names import DurableNames
from trialbus.hub.fetches import Fetches
from trialbus.hub.hub_socket import HubSocket
from trialbus.hub.log import Change, EventLog
from trialbus.hub.log_format import Connect, Sync
from trialbus.hub.rate_limit import RateLimit
from trialbus.hub.retention import Retention
from trialbus.hub.router import PeerSocket, Router
from trialbus.hub.session_registry import SessionRegistry
from trialbus.hub.windows import Windows
from trialbus.messages import codec
from trialbus.messages.topics import escape_study
from trialbus.protocol import frames, limits
from trialbus.protocol.endpoint import check_bindable, resolve
from trialbus.protocol.frames import Record
from trialbus.protocol.refusals import (
    explain_decode_error,
    find_exceeded_size,
    find_fault,
    find_subject,
)
from trialbus.protocol.security import Gatekeeper
from trialbus.protocol.status import DurableNameStatus, HubStatus, RetentionStatus

logger = logging.getLogger(__name__)

_PUBLISHER = b"hub"
_PRESENCE_TICK_S = 0.25
_FILES_TICK_MS = 500
_PUBLISHER_IDS = 1 << 16  # remembered
_LOSSY = 1000  # publishers whose missing events are reported
_SKIPPED = 1 << 20  # offsets; more than a tail that was lost is likely to have had


class Hub:
    """A hub on a log, bound to an endpoint.

    Args:
        endpoint: `ipc://<path>` or `tcp://<host>:<port>`.
        directory: Where the log is kept.
        sync: See `EventLog`.
        gatekeeper: Lets in only those with a known key, and each to what its role allows.
        insecure: Allow an endpoint that other machines can reach without a gatekeeper.
        keep_finished_s: Seconds that the events of a finished study stay in the log; None for
            until somebody asks to remove them.
        open_socket: Opens the socket at the endpoint.
        connect: Opens the file of the log.
        clock: Monotonic seconds.
        wall_clock: Seconds since the epoch.

    Raises:
        SpecError: The endpoint is malformed or may not be bound.
        LogError: The log cannot be used.
        TrialbusError: The address is taken.
    """

    def __init__(
        self,
        endpoint: str,
        directory: Path | str,
        *,
        sync: Sync = "full",
        gatekeeper: Gatekeeper | None = None,
        insecure: bool = False,
        keep_finished_s: float | None = None,
        open_socket: Callable[[str, Gatekeeper | None], PeerSocket] = HubSocket,
        connect: Connect = sqlite3.connect,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self.endpoint = resolve(endpoint)
        check_bindable(self.endpoint, guarded=gatekeeper is not None, insecure=insecure)
        self.log = EventLog(directory, sync=sync, connect=connect, wall_clock=wall_clock)
        self._sessions = SessionRegistry(self.log, clock, wall_clock)
        self._new_publishers = RateLimit(limits.NEW_PUBLISHERS_PER_MINUTE, clock)
        self._retention = Retention(self.log, keep_finished_s, clock, wall_clock)
        self._change = Change()
        self._acks: dict[tuple[bytes, bytes], None] = {}
        self._replies: list[tuple[bytes, frames.ToClient]] = []
        self._started = clock()
        self._next_presence = 0.0
        self._files_due = 0.0
        self._stopping = False
        self._lossy: set[bytes] = set()  # publishers that miss acknowledged events
        self._has_skipped = False  # offsets, for events that a publisher misses
        self._publisher_ids = lru_cache(_PUBLISHER_IDS)(frames.derive_publisher_id)
        self._wake_out, self._wake_in = socket.socketpair()
        self._wake_in.settimeout(0)
        try:
            self._router = Router(open_socket(self.endpoint, gatekeeper), gatekeeper, clock)
        except TrialbusError:
            self.log.close()
            raise
        self._acknowledgements = Acknowledgements(
            self._router, Windows(clock), self._find_last, clock
        )
        self._names = DurableNames(self.log)
        self._fetches = Fetches(self.log, self._router, self._names, clock)

    def run(self) -> None:
        """Serve until `stop` is called.

        Raises:
            LogError: A file of the log was deleted or replaced.
        """
        try:
            while not self._stopping:
                poller = zmq.Poller()
                self._router.register(poller)
                poller.register(self._wake_out, zmq.POLLIN)
                while not self._stopping and not self._router.is_flooded:
                    poller.poll(self._poll_ms())
                    self.turn()
                    self._check_files()
                if self._router.is_flooded:
                    self._hang_up()
        finally:
            self.close()

    def close(self) -> None:
        """Close the socket and the log; the changes of an unfinished turn are dropped."""
        self._router.close()
        self.log.close()
        self._wake_in.close()
        self._wake_out.close()

    def _hang_up(self) -> None:
        """Drop all connections, because a peer sends more than the hub can read."""
        self._router.counters["floods"] += 1
        logger.warning("a peer floods the hub: all connections are closed, and clients reconnect")
        self._fetches.clear()
        self._acknowledgements.clear()
        self._router.reopen()

    @property
    def wake_fd(self) -> int:
        """File descriptor that wakes the hub when a byte is written."""
        return self._wake_in.fileno()

    def stop(self) -> None:
        """End `run` after the current turn. May be called from a signal handler or a thread."""
        self._stopping = True
        self._wake_in.send(b"\0")

    @property
    def due(self) -> float:
        """When `turn` is to be called if no message arrives, on the clock; infinity for never."""
        if self._router.has_kept:
            return 0.0
        return min(
            self._fetches.due,
            self._acknowledgements.due,
            self._next_presence if len(self._sessions) or self._change else float("inf"),
            self._retention.due,
        )

    def _poll_ms(self) -> int:
        due = self.due
        left_s = min(due - self._clock(), _FILES_TICK_MS / 1000)
        return max(0, int(left_s * 1000) + 1)

    def _check_files(self) -> None:
        now = self._clock()
        if now >= self._files_due:
            self._files_due = now + _FILES_TICK_MS / 1000
            self.log.check_files()

    def turn(self) -> None:
        """Handle the messages that have arrived, write the log, and answer."""
        self._receive()
        now = self._clock()
        if now >= self._next_presence:
            self._next_presence = now + _PRESENCE_TICK_S
            self._expire_sessions()
        self._fetches.deliver(self._commit())
        self._fetches.answer()
        if now >= self._retention.due:
            try:
                self._retention.work()
            except sqlite3.Error as error:
                logger.warning("events could not be removed: %s", error)

    def _receive(self) -> None:
        for peer, parts in self._router.receive_turn():
            if parts == [b""]:  # libzmq's probe: the peer has just connected
                self._router.send(
                    peer, frames.Welcome(frames.PROTOCOL, self.log.log_id, self.log.end)
                )
            else:
                self._handle(peer, parts)

    def _handle(self, peer: bytes, parts: list[bytes]) -> None:
        if len(parts) != 1:
            reason = f"not a frame of this protocol: a message of {len(parts)} parts"
            self._router.refuse(peer, frames.BAD_FRAME, reason, None)
            return
        frame = parts[0]
        try:
            message = frames.decode_to_hub(frame)
        except msgspec.DecodeError as error:
            self._router.refuse(peer, frames.BAD_FRAME, *explain_decode_error(frame, error))
            return
        if len(frame) > limits.MAX_EVENT:
            excess = find_exceeded_size(frame, message)
            if excess is not None:
                self._router.refuse(peer, frames.BAD_FRAME, excess, find_subject(message))
                return
        self._router.charge(peer, message)
        forbidden = self._router.forbids(peer, message)
        if forbidden is None:
            self._dispatch(peer, message)
        else:
            self._router.refuse(peer, frames.FORBIDDEN, forbidden, find_subject(message))

    def _dispatch(self, peer: bytes, message: frames.ToHub) -> None:
        match message:
            case frames.Publish():
                self._handle_publish(peer, message)
            case frames.Fetch():
                self._fetches.take(peer, message)
            case frames.Commit():
                self._handle_commit(peer, message)
            case frames.Hello() | frames.Ping() | frames.Bye():
                answer = self._sessions.handle(
                    message, peer, self._router.key_name(peer), self._change
                )
                if isinstance(answer, frames.Refused):
                    self._router.refuse(peer, answer.code, answer.reason, answer.about)
                elif answer is not None:
                    self._replies.append((peer, answer))
            case frames.AskStatus():
                status = self.status(self._router.role(peer))
                self._router.charge_status(peer, len(status.sessions) + len(status.durable))
                self._router.send(peer, frames.Status(message.request, status))
            case frames.Forget():
                self._handle_forget(peer, message)
            case _:
                assert_never(message)

    def _handle_publish(self, peer: bytes, message: frames.Publish) -> None:
        publisher = self._publisher_ids(message.publisher)
        known = last = self._change.publishers.get(publisher, self.log.publishers.get(publisher, 0))
        if message.acknowledged > last:
            self._notice_lost_events(publisher, message.acknowledged - last)
        if message.base > last + 1:
            if last or message.acknowledged:
                lost = self._router.counters["lost"] + message.base - 1 - last
                self._router.counters["lost"] = min(lost, limits.MAX_NUMBER)
            last = message.base - 1
        skip = last + 1 - message.first
        self._acks[peer, message.publisher] = None
        if skip < 0:  # a gap: acknowledging what is here makes the sender go back
            return
        fault = find_fault(message)
        if fault is not None:
            self._router.refuse(peer, frames.BAD_FRAME, fault, message.publisher.hex())
            return
        self._router.counters["repeated"] += min(skip, len(message.events))
        new = message.events[skip:]
        if not new:
            return
        if not known and not self._new_publishers.admit(peer):
            reason = (
                f"more than {limits.NEW_PUBLISHERS_PER_MINUTE} new publishers of one connection "
                "in a minute"
            )
            self._router.refuse(peer, frames.TOO_MANY, reason, message.publisher.hex())
            return
        self._change.events += [
            (publisher, last + 1 + i, topic, body) for i, (topic, body) in enumerate(new)
        ]
        self._change.publishers[publisher] = last + len(new)

    def _find_last(self, publisher: bytes) -> int:
        return self.log.publishers.get(self._publisher_ids(publisher), 0)

    def _notice_lost_events(self, publisher: bytes, count: int) -> None:
        """Log that acknowledged events of a publisher are not in the log, and skip offsets."""
        if publisher in self._lossy or len(self._lossy) >= _LOSSY:
            return
        self._lossy.add(publisher)
        logger.error(
            "the log lacks %d acknowledged events of publisher %s. Was an older copy restored?",
            count,
            publisher.hex(),
        )
        if not self._has_skipped:
            # Nobody knows which offsets they had; a subscriber may have read up to the last.
            self._has_skipped = True
            try:
                self.log.skip_to(self.log.end + _SKIPPED, "unused")
            except sqlite3.Error as error:
                logger.warning("the log cannot be written: %s", error)
                self._has_skipped = False

    def _handle_commit(self, peer: bytes, message: frames.Commit) -> None:
        key, role = self._router.key_name(peer), self._router.role(peer)
        refusal = self._names.find_refusal(message, self._change, key, role)
        if refusal is not None:
            self._router.refuse(peer, *refusal, message.name)
            return
        try:
            covered = self.log.covers(message.offset, is_trusted=role == "service")
        except sqlite3.Error as error:
            reason = f"the log cannot be written: {error}"
            self._router.refuse(peer, frames.NO_SPACE, reason, message.name)
            return
        if not covered:
            self._router.refuse(
                peer,
                frames.OUT_OF_RANGE,
                f"offset {message.offset} is not in the log",
                message.name,
            )
            return
        self._change.committed[message.name] = message.offset
        self._replies.append((peer, frames.Committed(message.name, message.offset)))

    def _handle_forget(self, peer: bytes, message: frames.Forget) -> None:
        refusal = None
        if message.name is not None:
            if message.name in self.log.durable:
                self._change.committed[message.name] = None
            else:
                refusal = f"the hub knows no durable name {message.name!r}"
        if message.study is not None:
            refusal = self._retention.forget(escape_study(message.study), force=message.force)
        if refusal is None:
            self._replies.append((peer, frames.Forgotten(message.request)))
        else:
            self._router.refuse(peer, frames.CONFLICT, refusal, message.request)

    def _expire_sessions(self) -> None:
        for event in self._sessions.expire(self._change):
            self._router.counters["sessions_lost"] += 1
            seq = (
                self._change.publishers.get(_PUBLISHER, self.log.publishers.get(_PUBLISHER, 0)) + 1
            )
            self._change.events.append(
                (_PUBLISHER, seq, event.topic, msgspec.Raw(codec.encode(event)))
            )
            self._change.publishers[_PUBLISHER] = seq

    def _commit(self) -> list[Record]:
        """Write the changes of this turn, acknowledge the events, and return the new records."""
        change, self._change = self._change, Change()
        acks, self._acks = self._acks, {}
        replies, self._replies = self._replies, []
        records: list[Record] = []
        if change:
            try:
                with self._router.lent():
                    records = self.log.append(change)
            except sqlite3.Error as error:
                self._recover_from_failed_commit(change, error, acks, replies)
                return []
        self._acknowledgements.send(acks)
        for peer, reply in replies:
            self._router.send(peer, reply)
        return records

    def _recover_from_failed_commit(
        self,
        change: Change,
        error: sqlite3.Error,
        acks: Iterable[tuple[bytes, bytes]],
        replies: list[tuple[bytes, frames.ToClient]],
    ) -> None:
        """Let clients send again what the log could not take, and keep what nobody sends again."""
        self._router.counters["failed_commits"] += 1
        reason = f"the log cannot be written: {error}"
        for peer, publisher in acks:
            self._router.refuse(peer, frames.NO_SPACE, reason, publisher.hex())
        for peer, reply in replies:
            if isinstance(reply, frames.Committed):
                self._router.refuse(peer, frames.NO_SPACE, reason, reply.name)
            elif isinstance(reply, frames.Forgotten):
                self._router.refuse(peer, frames.NO_SPACE, reason, reply.request)
        # A session ends once: its trial would never be handed out again if nobody was told.
        kept = self._change
        kept.events += [event for event in change.events if event[0] == _PUBLISHER]
        if kept.events:
            kept.publishers[_PUBLISHER] = kept.events[-1][1]
        kept.sessions |= {id_: None for id_, hello in change.sessions.items() if hello is None}

    def status(self, role: str | None = None) -> HubStatus:
        """Return the state of the hub.

        Args:
            role: Of the key of the client that asks.
        """
        return HubStatus(
            log_id=self.log.log_id,
            end=self.log.end,
            damaged=self.log.damaged,
            lost=self.log.lost,
            endpoint=self.endpoint,
            path=str(self.log.path),
            pid=os.getpid(),
            up_s=self._clock() - self._started,
            role=role,
            parked=self._fetches.parked,
            durable={
                name: DurableNameStatus(offset=offset, lag=self.log.end - offset)
                for name, offset in self.log.durable.items()
            },
            sessions=self._sessions.describe(),
            retention=RetentionStatus(
                removed=self._retention.removed,
                removing=self._retention.removing,
                held_back=self._retention.held_back,
            ),
            counters=dict(self._router.counters),
            last_refused=self._router.last_refused,
        )
