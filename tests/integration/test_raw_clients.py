"""A client of any kind gets the answers of the protocol, and delays no other client."""

from __future__ import annotations

import os

import msgspec
import psutil
import zmq

import trialbus
from support.evaluations import get_step, make_evaluation
from support.processes import Bus
from support.raw_client import RawClient
from support.until import until
from trialbus.client.admin import hub_status
from trialbus.protocol import frames, limits


def test_noise_from_a_stranger_leaves_the_hub_serving(bus: Bus, raw_client: RawClient) -> None:
    bus.hub()
    with trialbus.Publisher(bus.endpoint) as publisher, trialbus.Link(bus.endpoint) as link:
        publisher.publish(make_evaluation(0))
        for noise in (
            b"",
            b"\xff" * 100,
            b"\x91\x63",
            b"\x95\x01",
            b"GET / HTTP/1.1\r\n\r\n",
            os.urandom(1000),
        ):
            raw_client.send_bytes(noise)
            raw_client.send_bytes(noise, noise)
        until(lambda: hub_status(link).counters.get("refused_400", 0) >= 11)
        publisher.publish(make_evaluation(1))
        assert publisher.flush(10)


def test_a_greedy_peer_that_reads_no_answer_keeps_nobody_from_being_served(
    bus: Bus, raw_client: RawClient
) -> None:
    """Unit tests of `Router.receive_turn` and `Fetches.answer` bound a peer's part of a turn."""
    bus.hub()
    body = msgspec.Raw(msgspec.msgpack.encode({"type": "x_a", "filling": "x" * 10_000}))
    with RawClient(bus.endpoint) as honest:
        for seq in range(1, 65):
            raw_client.try_send_all(
                [frames.Fetch(seq * 20 + i, 0, ["*/*/*"], max_events=4096) for i in range(20)]
            )
            honest.send(frames.Publish(b"honest", seq, [("x_a/s/", body)]))
            assert honest.receive() == frames.Ack(b"honest", seq, limits.MAX_WINDOW)
            honest.send(frames.Fetch(seq, seq - 1, ["*/*/*"]))
            answer = honest.receive()
            assert isinstance(answer, frames.Events)
            assert [record.offset for record in answer.records] == [seq - 1]


def test_a_fetch_that_stands_is_answered_until_it_had_its_answers(
    bus: Bus, raw_client: RawClient
) -> None:
    bus.hub()
    answers: list[frames.Events] = []
    with trialbus.Publisher(bus.endpoint) as publisher, trialbus.Link(bus.endpoint) as link:
        raw_client.send(frames.Fetch(7, 0, ["evaluation_complete/*/*"], wait_ms=60_000, answers=3))
        until(lambda: hub_status(link).parked == 1, 10, "a parked fetch")
        for step in range(4):
            publisher.publish(make_evaluation(step))
            assert publisher.flush(10)
            if step < 3:
                answer = raw_client.receive()
                assert isinstance(answer, frames.Events)
                answers.append(answer)
        until(lambda: hub_status(link).parked == 0, 10, "no parked fetch")
    assert [get_step(record) for answer in answers for record in answer.records] == [0, 1, 2]
    assert [answer.next for answer in answers] == [1, 2, 3]
    assert [answer.more for answer in answers] == [True, True, False]
    raw_client.send(frames.AskStatus(8))
    assert isinstance(raw_client.receive(), frames.Status)  # and no fourth answer before it


def test_a_fetch_too_many_is_refused_and_the_hub_goes_on(bus: Bus, raw_client: RawClient) -> None:
    bus.hub()
    with trialbus.Publisher(bus.endpoint) as publisher, trialbus.Link(bus.endpoint) as link:
        for request in range(64):
            raw_client.send(frames.Fetch(request, 0, ["*/*/*"], wait_ms=60_000))
        until(lambda: hub_status(link).parked == 64, 10, "64 parked fetches")
        raw_client.send(frames.Fetch(64, 0, ["*/*/*"], wait_ms=60_000))
        refused = raw_client.receive()
        assert isinstance(refused, frames.Refused)
        assert (refused.code, refused.about) == (frames.TOO_MANY, 64)
        publisher.publish(make_evaluation(0))
        assert publisher.flush(10)
        answer = raw_client.receive()
        assert isinstance(answer, frames.Events)
        assert [get_step(record) for record in answer.records] == [0]


def test_a_thousand_parked_subscribers_cost_nothing_while_nothing_happens(bus: Bus) -> None:
    hub = bus.hub()
    context = zmq.Context()
    context.set(zmq.MAX_SOCKETS, 2000)
    clients: list[RawClient] = []
    with trialbus.Link(bus.endpoint) as link:
        link.wait_connected(20)
        for number in range(1000):
            client = RawClient(bus.endpoint, context)
            clients.append(client)
            client.send(frames.Fetch(1, 0, [f"prune/s/{number}"], wait_ms=60_000))
        until(lambda: hub_status(link).parked == 1000, 30, "a thousand parked fetches")
    assert psutil.Process(hub.pid).cpu_percent(interval=2.0) < 2.5
    for client in clients:
        client.close()
    context.term()
