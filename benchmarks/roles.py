"""The processes of the bus benchmarks: ROLE ENDPOINT COUNT RATE, one JSON line at the end."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable

import msgspec
import zmq

import trialbus
from trialbus.protocol import frames, limits

_METRICS = {"val/accuracy": 0.9, "val/loss": 0.3, "train/loss": 0.2, "lr": 1e-3, "a": 1.0, "b": 2.0}
_CROWD_BATCH = 32
_SESSION_MS = 600_000
_WORK = bytes(100_000)
_PAUSE_S = 50e-6
_RING = 256 << 20  # so that the outbox never bounds what is measured


def event(step: int) -> trialbus.EvaluationComplete:
    return trialbus.EvaluationComplete(study="s", trial=step % 50, step=step, metrics=_METRICS)


def train(endpoint: str, count: int, rate: float) -> None:
    """Publish as a training does that computes in between, and keeps a core for itself."""
    publish(endpoint, count, rate, pause=lambda: hashlib.sha256(_WORK), at_once=False)


def publish(
    endpoint: str,
    count: int,
    rate: float,
    *,
    pause: Callable[[], object] = lambda: time.sleep(_PAUSE_S),
    at_once: bool = True,
) -> None:
    """Publish, as fast as it goes or at a rate, and tell when it began and what each call cost."""
    with trialbus.Publisher(endpoint, capacity=1 << 24, ring_bytes=_RING) as publisher:
        publisher.flush(10)
        costs: list[float] = []
        began = time.time()
        for step in range(count):
            while rate and time.time() < began + step / rate:
                pause()
            start = time.perf_counter()
            publisher.publish(event(step), at_once=at_once)
            costs.append(time.perf_counter() - start)
        publisher.flush(60)
    costs.sort()
    done = {
        "began": began,
        "p50_us": costs[count // 2] * 1e6,
        "p99_us": costs[count * 99 // 100] * 1e6,
    }
    print(json.dumps(done), flush=True)


def subscribe(endpoint: str, count: int, _: float) -> None:
    """Read and decode every event, and tell when the last came and how long they took."""
    with trialbus.subscribe(trialbus.EvaluationComplete, endpoint=endpoint) as inbox:
        inbox.wait_ready(30)
        print("ready", flush=True)
        waits: list[float] = []
        while len(waits) < count:
            for record in inbox.records(30):
                found = record.event
                waits.append(time.time() - getattr(found, "at", 0.0))
    waits.sort()
    done = {
        "ended": time.time(),
        "p50_ms": waits[count // 2] * 1e3,
        "p99_ms": waits[count * 99 // 100] * 1e3,
    }
    print(json.dumps(done), flush=True)


def crowd(endpoint: str, count: int, publishers: float) -> None:
    """Be many trainers, each with a connection and a session, and send in turn."""
    context = zmq.Context()
    context.set(zmq.MAX_SOCKETS, 4096)
    n = int(publishers)
    sockets = [context.socket(zmq.DEALER) for _ in range(n)]
    for socket in sockets:
        socket.linger = 0
        socket.connect(endpoint)
        session = f"{os.getpid()}-{len(sockets)}-{id(socket)}"
        socket.send(frames.encode(frames.Hello(session, "trainer", "", ttl_ms=_SESSION_MS)))
    topic, body = event(0).topic, msgspec.Raw(msgspec.msgpack.encode(event(0)))
    rounds = count // (n * _CROWD_BATCH)
    windows = [limits.MIN_WINDOW] * n
    n_sent, n_acknowledged = [0] * n, [0] * n
    began = time.time()
    busy = set(range(n))
    while busy:
        for number in list(busy):
            socket = sockets[number]
            while socket.poll(0):
                answer = frames.decode_to_client(socket.recv())
                if isinstance(answer, frames.Ack):
                    n_acknowledged[number], windows[number] = answer.last, answer.window
            if n_acknowledged[number] == rounds * _CROWD_BATCH:
                busy.discard(number)
                continue
            on_the_way = n_sent[number] - n_acknowledged[number]
            fits = (on_the_way + _CROWD_BATCH) * (len(topic) + len(body)) <= windows[number]
            if n_sent[number] < rounds * _CROWD_BATCH and (fits or not on_the_way):
                identity = f"{os.getpid()}-{number}".encode()
                first = n_sent[number] + 1
                events = [(topic, body)] * _CROWD_BATCH
                socket.send(frames.encode(frames.Publish(identity, first, events)))
                n_sent[number] += _CROWD_BATCH
    done = {"began": began, "ended": time.time(), "count": rounds * n * _CROWD_BATCH}
    for socket in sockets:
        socket.close()
    context.term()
    print(json.dumps(done), flush=True)


if __name__ == "__main__":
    role, where, how_many, at = sys.argv[1:5]
    {"train": train, "publish": publish, "subscribe": subscribe, "crowd": crowd}[role](
        where, int(how_many), float(at)
    )
