"""Roles of the bus benchmark, each a process: ROLE ENDPOINT COUNT RATE; prints one JSON line."""

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


def make_event(step: int) -> trialbus.EvaluationComplete:
    return trialbus.EvaluationComplete(study="s", trial=step % 50, step=step, metrics=_METRICS)


def train(endpoint: str, count: int, rate: float) -> None:
    """Publish like a training that computes between evaluations and keeps a core busy."""
    publish(endpoint, count, rate, pause=lambda: hashlib.sha256(_WORK), at_once=False)


def publish(
    endpoint: str,
    count: int,
    rate: float,
    *,
    pause: Callable[[], object] = lambda: time.sleep(_PAUSE_S),
    at_once: bool = True,
) -> None:
    """Publish as fast as possible, or at a rate, and print the cost of the calls."""
    with trialbus.Publisher(endpoint, capacity=1 << 24, ring_bytes=_RING) as publisher:
        publisher.flush(10)
        costs: list[float] = []
        began = time.time()
        for step in range(count):
            while rate and time.time() < began + step / rate:
                pause()
            start = time.perf_counter()
            publisher.publish(make_event(step), at_once=at_once)
            costs.append(time.perf_counter() - start)
        publisher.flush(60)
    costs.sort()
    figures = {
        "began": began,
        "p50_us": costs[count // 2] * 1e6,
        "p99_us": costs[count * 99 // 100] * 1e6,
    }
    print(json.dumps(figures), flush=True)


def subscribe(endpoint: str, count: int, _: float) -> None:
    """Read and decode all events, and print the end and percentiles of the latency."""
    with trialbus.subscribe(trialbus.EvaluationComplete, endpoint=endpoint) as inbox:
        inbox.wait_ready(30)
        print("ready", flush=True)
        waits: list[float] = []
        while len(waits) < count:
            for record in inbox.records(30):
                event = record.event
                waits.append(time.time() - getattr(event, "at", 0.0))
    waits.sort()
    figures = {
        "ended": time.time(),
        "p50_ms": waits[count // 2] * 1e3,
        "p99_ms": waits[count * 99 // 100] * 1e3,
    }
    print(json.dumps(figures), flush=True)


def _connect_trainers(
    endpoint: str, n: int
) -> tuple[zmq.Context[zmq.Socket[bytes]], list[zmq.Socket[bytes]]]:
    """Open connections with a session each."""
    context = zmq.Context()
    context.set(zmq.MAX_SOCKETS, 4096)
    sockets = [context.socket(zmq.DEALER) for _ in range(n)]
    for socket in sockets:
        socket.linger = 0
        socket.connect(endpoint)
        session = f"{os.getpid()}-{len(sockets)}-{id(socket)}"
        socket.send(frames.encode(frames.Hello(session, "trainer", "", ttl_ms=_SESSION_MS)))
    return context, sockets


def crowd(endpoint: str, count: int, publishers: float) -> None:
    """Publish from many trainers in turn, each with a connection and a session."""
    n = int(publishers)
    context, sockets = _connect_trainers(endpoint, n)
    poller = zmq.Poller()
    for socket in sockets:
        poller.register(socket, zmq.POLLIN)
    number_of = {socket: number for number, socket in enumerate(sockets)}
    topic, body = make_event(0).topic, msgspec.Raw(msgspec.msgpack.encode(make_event(0)))
    batch = [(topic, body)] * _CROWD_BATCH
    size = _CROWD_BATCH * (len(topic) + len(body))
    total = count // (n * _CROWD_BATCH) * _CROWD_BATCH
    windows, n_sent, n_acknowledged = [limits.MIN_WINDOW] * n, [0] * n, [0] * n
    began = time.time()

    def send_window(number: int) -> None:
        n_batches = (n_sent[number] - n_acknowledged[number]) // _CROWD_BATCH
        while n_sent[number] < total and (n_batches + 1) * size <= windows[number]:
            identity = f"{os.getpid()}-{number}".encode()
            publish = frames.Publish(identity, n_sent[number] + 1, batch)
            sockets[number].send(frames.encode(publish))
            n_sent[number] += _CROWD_BATCH
            n_batches += 1

    for number in range(n):
        send_window(number)
    n_busy = n
    while n_busy:
        for socket, _ in poller.poll():
            number = number_of[socket]
            while socket.poll(0):
                answer = frames.decode_to_client(socket.recv())
                if isinstance(answer, frames.Ack):
                    n_busy -= n_acknowledged[number] < total == answer.last
                    n_acknowledged[number], windows[number] = answer.last, answer.window
            send_window(number)
    figures = {"began": began, "ended": time.time(), "count": total * n}
    for socket in sockets:
        socket.close()
    context.term()
    print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    role, address, n_events, events_per_s = sys.argv[1:5]
    {"train": train, "publish": publish, "subscribe": subscribe, "crowd": crowd}[role](
        address, int(n_events), float(events_per_s)
    )
