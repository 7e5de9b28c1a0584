"""The hub serves other clients during a hundred thousand malformed or unexpected frames."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import msgspec
import psutil
import zmq

import trialbus
from support.processes import Bus
from support.until import until
from trialbus.client.admin import hub_status
from trialbus.protocol import frames

FRAMES = 100_000
_EVENT = trialbus.Stop(study="s")

VALID: list[Any] = [
    frames.Publish(b"x" * 16, 1, [(_EVENT.topic, msgspec.Raw(msgspec.msgpack.encode(_EVENT)))]),
    frames.Fetch(1, 0, ["*/*/*"], wait_ms=10),
    frames.Fetch(2, frames.NOW, ["prune/s/*"], name="fuzz"),
    frames.Commit("fuzz", 0),
    frames.Hello("fuzz", "trainer", "n", 60_000),
    frames.Ping("fuzz"),
    frames.Bye("fuzz"),
    frames.AskStatus(1),
]
NUMBERS: list[Any] = [None, True, -1, 2**63, 2**64 - 1, -(2**63), 1.5, float("nan")]
TEXTS: list[Any] = ["", "a/b", "*/*/*", "x" * 5000, b"", b"x" * 5000]
NESTED: list[Any] = [[], [[]], [["a", "b"]], [[[[]]]], {}, {"a": 1}]
VALUES = NUMBERS + TEXTS + NESTED


class Fuzzer:
    """Reproducible source of frames mutated from valid frames."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._valid = [frames.encode(frame) for frame in VALID]
        self._makers: list[Callable[[], bytes]] = [
            self.noise,
            self.truncated,
            self.flipped,
            self.with_wrong_values,
            self.of_another_version,
            self.oversized,
            self.out_of_order,
        ]

    def frame(self) -> bytes:
        return self._random.choice(self._makers)()

    def noise(self) -> bytes:
        return self._random.randbytes(self._random.randrange(0, 200))

    def truncated(self) -> bytes:
        frame = self._random.choice(self._valid)
        return frame[: self._random.randrange(len(frame))]

    def flipped(self) -> bytes:
        frame = bytearray(self._random.choice(self._valid))
        for _ in range(self._random.randint(1, 4)):
            frame[self._random.randrange(len(frame))] ^= 1 << self._random.randrange(8)
        return bytes(frame)

    def with_wrong_values(self) -> bytes:
        fields = msgspec.msgpack.decode(self._random.choice(self._valid))
        for _ in range(self._random.randint(1, 2)):
            fields[self._random.randrange(len(fields))] = self._random.choice(VALUES)
        return msgspec.msgpack.encode(fields)

    def of_another_version(self) -> bytes:
        fields = msgspec.msgpack.decode(self._random.choice(self._valid))
        if self._random.random() < 0.5:
            return msgspec.msgpack.encode([*fields, "new", {"field": 1}])
        return msgspec.msgpack.encode(fields[: self._random.randrange(1, len(fields) + 1)])

    def oversized(self) -> bytes:
        patterns = ["*/*/*"] * self._random.choice([65, 1000])
        return msgspec.msgpack.encode([2, 1, 0, patterns])

    def out_of_order(self) -> bytes:
        first, base = self._random.randrange(2**40), self._random.randrange(2**40)
        return frames.encode(frames.Publish(b"y" * 16, first, VALID[0].events, base))


def connect(context: zmq.Context[zmq.Socket[bytes]], bus: Bus) -> zmq.Socket[bytes]:
    stranger = context.socket(zmq.DEALER)
    stranger.linger = 10_000
    stranger.connect(bus.endpoint)
    return stranger


def test_hostile_frames_are_refused_counted_and_harm_nobody(bus: Bus) -> None:
    hub = bus.hub()
    context = zmq.Context()
    stranger = connect(context, bus)
    fuzzer = Fuzzer(seed=5)
    with (
        trialbus.subscribe(trialbus.EvaluationComplete, endpoint=bus.endpoint) as inbox,
        trialbus.Publisher(bus.endpoint) as publisher,
        trialbus.Link(bus.endpoint) as link,
    ):
        inbox.wait_ready(20)
        before = psutil.Process(hub.pid).memory_info().rss
        for number in range(FRAMES):
            if number % 100 == 99:  # as another peer: one alone would be ignored as a flood
                stranger.close()
                stranger = connect(context, bus)
            stranger.send(fuzzer.frame())
            while stranger.poll(0):  # it reads, as a careful enemy would
                stranger.recv_multipart()
            if number % 1000 == 0:
                publisher.publish(
                    trialbus.EvaluationComplete(study="s", trial=0, step=number, metrics={})
                )
        assert publisher.flush(60)
        seen = [inbox.next(10) for _ in range(FRAMES // 1000)]
        assert [event and event.step for event in seen] == list(range(0, FRAMES, 1000))
        counters = until(lambda: hub_status(link).counters, 10)
        assert counters["refused_400"] > FRAMES / 3
        assert hub_status(link).last_refused
        assert psutil.Process(hub.pid).memory_info().rss - before < 150 << 20
    stranger.close()
    context.term()
    assert hub.running
    assert "Traceback" not in hub.printed()
    assert hub.stop() == 0
