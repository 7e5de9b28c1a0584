"""Publishers and subscribers against a hub that is a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import resource
import shutil
import signal
import sqlite3
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec
import psutil
import pytest

import trialbus
from support.processes import Bus
from support.until import until
from trialbus.client.admin import hub_status
from trialbus.client.link import Link
from trialbus.protocol import frames


def evaluation(step: int, study: str = "s", trial: int = 0) -> trialbus.EvaluationComplete:
    return trialbus.EvaluationComplete(
        study=study, trial=trial, step=step, metrics={"loss": 1.0 / (step + 1)}
    )


def steps(
    subscriber: trialbus.Subscriber[trialbus.Event | trialbus.UnknownEvent], count: int
) -> list[int]:
    found: list[int] = []
    while len(found) < count:
        event = subscriber.next(20)
        assert isinstance(event, trialbus.EvaluationComplete), (
            f"got {event} after {len(found)} events"
        )
        found.append(event.step)
    return found


def step_of(record: trialbus.Record) -> int:
    event = record.event
    assert isinstance(event, trialbus.EvaluationComplete)
    return event.step


def logged_steps(bus: Bus) -> list[int]:
    return [step_of(record) for record in trialbus.replay(endpoint=bus.endpoint)]


def test_events_arrive_once_and_in_order_whatever_the_hub_goes_through(bus: Bus) -> None:
    hub = bus.hub()
    with (
        trialbus.subscribe(trialbus.EvaluationComplete, endpoint=bus.endpoint) as inbox,
        trialbus.Publisher(bus.endpoint) as publisher,
    ):
        inbox.wait_ready()
        for round_ in range(5):
            for step in range(1000):
                publisher.publish(evaluation(round_ * 1000 + step))
            hub.restart()
        assert steps(inbox, 5000) == list(range(5000))
        assert inbox.next(0.1) is None


def test_what_is_published_before_a_hub_exists_arrives_when_there_is_one(bus: Bus) -> None:
    with trialbus.Publisher(bus.endpoint) as publisher:
        for step in range(100):
            publisher.publish(evaluation(step))
        assert not publisher.flush(0.05)
        bus.hub()
        assert publisher.flush(20)
    assert logged_steps(bus) == list(range(100))


def test_a_durable_name_goes_on_where_it_committed(bus: Bus) -> None:
    bus.hub()
    with trialbus.Publisher(bus.endpoint) as publisher:
        for step in range(10):
            publisher.publish(evaluation(step))
    with trialbus.subscribe(
        name="mine", start="earliest", autocommit=False, endpoint=bus.endpoint
    ) as inbox:
        assert steps(inbox, 4) == [0, 1, 2, 3]
        assert inbox.commit(wait_s=5)
        assert steps(inbox, 3) == [4, 5, 6]
    bus.processes["hub"].restart()
    with trialbus.subscribe(
        name="mine", start="now", autocommit=False, endpoint=bus.endpoint
    ) as inbox:
        assert steps(inbox, 6) == [4, 5, 6, 7, 8, 9]


def test_a_durable_name_that_is_new_misses_nothing_from_its_first_moment_on(bus: Bus) -> None:
    bus.hub()
    with trialbus.subscribe(name="new", endpoint=bus.endpoint, autocommit=False) as inbox:
        inbox.wait_ready()
    with trialbus.Publisher(bus.endpoint) as publisher:
        publisher.publish(evaluation(7))
    with trialbus.subscribe(name="new", endpoint=bus.endpoint) as inbox:
        assert steps(inbox, 1) == [7]


def test_a_loop_over_a_durable_name_commits_by_itself(bus: Bus) -> None:
    bus.hub()
    with trialbus.Publisher(bus.endpoint) as publisher:
        for step in range(5):
            publisher.publish(evaluation(step))
    with trialbus.subscribe(name="loop", start="earliest", endpoint=bus.endpoint) as inbox:
        for event in inbox:
            if isinstance(event, trialbus.EvaluationComplete) and event.step == 2:
                break
    with trialbus.subscribe(name="loop", endpoint=bus.endpoint) as inbox:
        assert steps(inbox, 2) == [3, 4]


@pytest.mark.parametrize(
    ("study", "trial", "expected"),
    [
        (None, None, {(s, t) for s in ("a", "b") for t in (1, 2)}),
        ("a", None, {("a", 1), ("a", 2)}),
        ("b", 2, {("b", 2)}),
    ],
)
def test_filters_by_study_and_trial(
    bus: Bus, study: str | None, trial: int | None, expected: set[tuple[str, int]]
) -> None:
    bus.hub()
    with trialbus.Publisher(bus.endpoint) as publisher:
        for name in ("a", "b"):
            publisher.publish(trialbus.Stop(study=name))
            for number in (1, 2):
                publisher.publish(evaluation(0, name, number))
    found = trialbus.replay(
        trialbus.EvaluationComplete, study=study, trial=trial, endpoint=bus.endpoint
    )
    assert {(event.study, event.trial) for record in found if (event := record.event)} == expected  # type: ignore[union-attr]


async def test_an_async_loop_gets_what_a_plain_loop_gets(bus: Bus) -> None:
    bus.hub()
    async with trialbus.subscribe(start="earliest", endpoint=bus.endpoint) as inbox:
        with trialbus.Publisher(bus.endpoint) as publisher:
            for step in range(2000):
                publisher.publish(evaluation(step))
        found: list[int] = []
        async with asyncio.timeout(20):
            async for event in inbox:
                assert isinstance(event, trialbus.EvaluationComplete)
                found.append(event.step)
                if len(found) == 2000:
                    break
    assert found == list(range(2000))


def test_a_registered_session_that_falls_silent_is_reported_lost_and_one_that_says_goodbye_is_not(
    bus: Bus,
) -> None:
    bus.hub()
    script = (
        "import sys, time, trialbus\n"
        "p = trialbus.Presence(sys.argv[1], kind='trainer', ttl_s=1.0, study='s', trial=4,"
        " attempt=1)\n"
        "p.wait_registered(10); print('ready', flush=True); time.sleep(60)\n"
    )
    trainer = bus.run("trainer", [sys.executable, "-c", script, bus.endpoint])
    with trialbus.subscribe(trialbus.TrainerLost, endpoint=bus.endpoint) as inbox:
        inbox.wait_ready()
        polite = trialbus.Presence(bus.endpoint, kind="trainer", ttl_s=1.0, study="s", trial=5)
        polite.wait_registered(10)
        polite.close()
        until(lambda: "ready" in trainer.printed())
        trainer.signal(signal.SIGSTOP)
        event = inbox.next(10)
        assert isinstance(event, trialbus.TrainerLost)
        assert (event.kind, event.study, event.trial, event.attempt) == ("trainer", "s", 4, 1)
        assert inbox.next(1.5) is None
        trainer.signal(signal.SIGCONT)


def test_sessions_survive_a_restart_of_the_hub(bus: Bus) -> None:
    hub = bus.hub()
    with (
        trialbus.subscribe(trialbus.TrainerLost, endpoint=bus.endpoint) as inbox,
        trialbus.Presence(bus.endpoint, kind="trainer", ttl_s=2.0) as presence,
        trialbus.Link(bus.endpoint) as link,
    ):
        inbox.wait_ready()
        presence.wait_registered(10)
        hub.restart()
        assert inbox.next(3.0) is None
        assert [s.session for s in hub_status(link).sessions] == [presence.session]
        assert not presence.lost


def test_a_hub_that_stood_still_declares_nobody_lost(bus: Bus) -> None:
    hub = bus.hub()
    with (
        trialbus.subscribe(trialbus.TrainerLost, endpoint=bus.endpoint) as inbox,
        trialbus.Presence(bus.endpoint, kind="trainer", ttl_s=1.0) as presence,
    ):
        inbox.wait_ready()
        presence.wait_registered(10)
        hub.signal(signal.SIGSTOP)
        assert inbox.next(2.5) is None  # longer than the time-to-live
        hub.signal(signal.SIGCONT)
        assert inbox.next(1.5) is None


def test_another_log_behind_the_endpoint_is_reported_and_not_mixed_up(bus: Bus) -> None:
    hub = bus.hub()
    with (
        trialbus.subscribe(endpoint=bus.endpoint) as inbox,
        trialbus.Publisher(bus.endpoint) as publisher,
    ):
        inbox.wait_ready()
        publisher.publish(evaluation(0))
        steps(inbox, 1)
        hub.kill()
        for file in (bus.directory / "log").iterdir():
            file.unlink()
        hub.start()
        with pytest.raises(trialbus.LogResetError):
            inbox.next(20)
        publisher.publish(evaluation(1))
        assert publisher.flush(20)


def test_two_hubs_cannot_use_one_log(bus: Bus) -> None:
    hub = bus.hub()
    until(lambda: "hub at" in hub.printed())
    second = bus.run(
        "second", [*hub.command[:-3], f"ipc://{bus.directory}/other.sock", *hub.command[-2:]]
    )
    assert second.wait(20) == 1
    assert f"in use by another hub (process {hub.pid})" in second.printed()


def test_a_file_that_is_no_log_is_refused_and_left_as_it_was(bus: Bus) -> None:
    path = bus.directory / "log" / "events.db"
    path.parent.mkdir()
    path.write_bytes(b"something else" * 100)
    hub = bus.hub()
    assert hub.wait(20) == 1
    assert "cannot be read as an event log" in hub.printed()
    assert path.read_bytes() == b"something else" * 100


def test_a_log_of_another_format_is_refused(bus: Bus) -> None:
    hub = bus.hub()
    until(lambda: "hub at" in hub.printed())
    hub.stop()
    with sqlite3.connect(bus.directory / "log" / "events.db") as db:
        db.execute("UPDATE meta SET value = '99' WHERE key = 'format'")
    hub.start()
    assert hub.wait(20) == 1
    assert "has format '99'; this version reads '2'" in hub.printed()


def test_an_endpoint_that_strangers_can_reach_is_refused(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "trialbus.hub",
        "--endpoint",
        "tcp://0.0.0.0:5999",
        "--dir",
        str(tmp_path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert "bus.insecure=true" in done.stderr


def test_a_publisher_in_a_forked_child_has_an_identity_of_its_own(bus: Bus) -> None:
    bus.hub()
    with trialbus.Publisher(bus.endpoint) as publisher:
        publisher.publish(evaluation(0))
        child = os.fork()
        if child == 0:
            publisher.publish(evaluation(100))
            os._exit(0 if publisher.flush(10) else 1)
        for step in range(1, 50):
            publisher.publish(evaluation(step))
        assert os.waitpid(child, 0)[1] == 0
    records = list(trialbus.replay(endpoint=bus.endpoint))
    by_publisher: dict[bytes, list[tuple[int, int]]] = {}
    for record in records:
        by_publisher.setdefault(record.publisher, []).append((record.seq, step_of(record)))
    assert sorted(by_publisher.values(), key=len) == [[(1, 100)], [(i + 1, i) for i in range(50)]]


def test_a_type_of_ones_own_travels_and_an_unknown_one_arrives_untouched(bus: Bus) -> None:
    @trialbus.register
    class GpuHot(trialbus.Event, frozen=True, kw_only=True, tag="x_gpu_hot"):
        celsius: float

    class Unheard(trialbus.Event, frozen=True, kw_only=True, tag="x_unheard"):
        value: int

    bus.hub()
    with trialbus.Publisher(bus.endpoint) as publisher:
        publisher.publish(GpuHot(study="s", celsius=91.5))
        publisher.publish(Unheard(study="s", value=3))
    hot, unheard = (record.event for record in trialbus.replay(endpoint=bus.endpoint))
    assert isinstance(hot, GpuHot)
    assert hot.celsius == 91.5
    assert isinstance(unheard, trialbus.UnknownEvent)
    assert (unheard.type, unheard.data["value"]) == ("x_unheard", 3)


def test_a_full_outbox_does_what_its_rule_says(bus: Bus) -> None:
    raising = trialbus.Publisher(bus.endpoint, capacity=3, when_full="raise")
    blocking = trialbus.Publisher(bus.endpoint, capacity=3, when_full="block", block_s=0.2)
    dropping = trialbus.Publisher(bus.endpoint, capacity=3, when_full="drop_oldest")
    for publisher in (raising, blocking, dropping):
        for step in range(3):
            publisher.publish(evaluation(step))
    for publisher in (raising, blocking):
        with pytest.raises(trialbus.OutboxFullError, match="holds its 3 events"):
            publisher.publish(evaluation(3))
    dropping.publish(evaluation(3))
    assert dropping.dropped == 1
    bus.hub()
    for publisher in (raising, blocking, dropping):
        assert publisher.close(20)
    assert sorted(logged_steps(bus)) == sorted([0, 1, 2, 0, 1, 2, 1, 2, 3])


def test_noise_from_a_stranger_leaves_the_hub_serving(bus: Bus) -> None:
    import zmq

    bus.hub()
    with trialbus.Publisher(bus.endpoint) as publisher, trialbus.Link(bus.endpoint) as link:
        publisher.publish(evaluation(0))
        context = zmq.Context()
        stranger = context.socket(zmq.DEALER)
        stranger.linger = 1000
        stranger.connect(bus.endpoint)
        for noise in (
            b"",
            b"\xff" * 100,
            b"\x91\x63",
            b"\x95\x01",
            b"GET / HTTP/1.1\r\n\r\n",
            os.urandom(1000),
        ):
            stranger.send(noise)
            stranger.send_multipart([noise, noise])
        stranger.close()
        context.term()
        until(lambda: hub_status(link).counters.get("refused_400", 0) >= 11)
        publisher.publish(evaluation(1))
        assert publisher.flush(10)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits another process's files")
def test_a_full_disk_is_told_to_publishers_and_costs_no_event(bus: Bus) -> None:
    hub = bus.hub()
    with (
        trialbus.Publisher(bus.endpoint) as publisher,
        trialbus.Link(bus.endpoint) as link,
    ):
        publisher.publish(evaluation(0))
        assert publisher.flush(20)
        written = max(file.stat().st_size for file in (bus.directory / "log").iterdir())
        _, hard = resource.prlimit(hub.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(hub.pid, resource.RLIMIT_FSIZE, (written + 200_000, hard))
        for step in range(1, 5000):
            publisher.publish(evaluation(step))
        until(lambda: publisher.refused, 20, "a word from the hub")
        acknowledged = 5000 - publisher.pending
        assert hub_status(link).counters["failed_commits"] > 0
        resource.prlimit(hub.pid, resource.RLIMIT_FSIZE, (hard, hard))
        assert publisher.flush(30)
    assert 0 < acknowledged < 5000
    assert logged_steps(bus) == list(range(5000))


@pytest.mark.skipif(shutil.which("unshare") is None, reason="a small disk needs unshare")
def test_a_disk_without_space_is_told_to_publishers_and_costs_no_event(bus: Bus) -> None:
    """A hub in a mount namespace of its own, where its log is on a disk of three megabytes."""
    log = bus.directory / "log"
    log.mkdir()
    script = (
        f"mount -t tmpfs -o size=3m none {log} && head -c 2700000 /dev/zero > {log}/ballast &&"
        f' exec "$@"'
    )
    hub = [sys.executable, "-m", "trialbus.hub", "--endpoint", bus.endpoint, "--dir", str(log)]
    process = bus.run(
        "hub", ["unshare", "--mount", "--map-root-user", "sh", "-c", script, "", *hub]
    )
    with (
        trialbus.Publisher(bus.endpoint) as publisher,
        trialbus.Link(bus.endpoint) as link,
    ):
        publisher.publish(evaluation(0))
        assert publisher.flush(20)
        for step in range(1, 5000):
            publisher.publish(evaluation(step))
        until(lambda: publisher.refused, 20, "a word from the hub")
        acknowledged = 5000 - publisher.pending
        assert hub_status(link).counters["failed_commits"] > 0
        # Its disk as the hub sees it.
        Path(f"/proc/{process.pid}/root{log}/ballast").unlink()
        assert publisher.flush(30)
    assert 0 < acknowledged < 5000
    assert logged_steps(bus) == list(range(5000))


def test_many_threads_may_publish_through_one_publisher(bus: Bus) -> None:
    bus.hub()
    with trialbus.Publisher(bus.endpoint) as publisher:

        def work(trial: int) -> None:
            for step in range(500):
                publisher.publish(evaluation(step, trial=trial))

        threads = [threading.Thread(target=work, args=(trial,)) for trial in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert publisher.flush(20)
    by_trial: dict[int, list[int]] = {}
    records = list(trialbus.replay(endpoint=bus.endpoint))
    for record in records:
        event = record.event
        assert isinstance(event, trialbus.EvaluationComplete)
        by_trial.setdefault(event.trial, []).append(event.step)
    assert by_trial == {trial: list(range(500)) for trial in range(8)}
    assert [record.seq for record in records] == list(range(1, 4001))


class Acks:
    """A part of a link that counts what the hub acknowledges, batch by batch."""

    def __init__(self) -> None:
        self.count = 0

    def on_welcome(self, welcome: frames.Welcome) -> None: ...

    def on_frame(self, frame: frames.ToClient) -> None:
        self.count += isinstance(frame, frames.Ack)

    def work(self, send: object, now: float) -> None: ...

    def on_close(self) -> None: ...


def test_events_that_may_wait_are_sent_together_and_arrive_without_being_asked_for(
    bus: Bus,
) -> None:
    bus.hub()
    acks, began = Acks(), time.monotonic()
    with (
        Link(bus.endpoint) as link,
        trialbus.subscribe(trialbus.EvaluationComplete, endpoint=bus.endpoint) as inbox,
        trialbus.Publisher(link=link) as publisher,
    ):
        inbox.wait_ready()
        link.attach(acks)
        for step in range(100):
            publisher.publish(evaluation(step), at_once=False)
            hashlib.pbkdf2_hmac("sha256", b"a step of training", b"", 10_000)
        assert steps(inbox, 100) == list(range(100))
        until(lambda: not publisher.pending)
    assert acks.count <= 2 + (time.monotonic() - began) / 25e-3


def test_a_greedy_peer_does_not_make_the_others_wait(bus: Bus) -> None:
    """Fetching everything over and over without reading, and flooding the hub with events."""
    import zmq

    bus.hub()
    context = zmq.Context()
    greedy = context.socket(zmq.DEALER)
    greedy.linger = 0
    with trialbus.Publisher(bus.endpoint) as publisher:
        for step in range(20_000):
            publisher.publish(evaluation(step))
        assert publisher.flush(30)
        greedy.connect(bus.endpoint)
        waits: list[float] = []
        for request in range(300):
            for i in range(20):
                frame = frames.encode(frames.Fetch(request * 20 + i, 0, ["*/*/*"], max_events=4096))
                with contextlib.suppress(zmq.Again):
                    greedy.send(frame, zmq.NOBLOCK)
            began = time.monotonic()
            publisher.publish(evaluation(0))
            assert publisher.flush(10)
            waits.append(time.monotonic() - began)
    greedy.close()
    context.term()
    # Not a measure of speed: without limits for each peer it is more than a second.
    assert statistics.median(waits) < 0.05


def test_a_peer_that_floods_the_hub_with_events_does_not_make_the_others_wait(bus: Bus) -> None:
    import zmq

    bus.hub()
    context = zmq.Context()
    flood = context.socket(zmq.DEALER)
    flood.linger = 0
    flood.connect(bus.endpoint)
    body = msgspec.Raw(msgspec.msgpack.encode({"type": "x_noise", "filling": "x" * 1000}))
    batch = [("x_noise/s/", body)] * frames.BATCH_EVENTS
    waits: list[float] = []
    with trialbus.Publisher(bus.endpoint) as publisher:
        publisher.publish(evaluation(0))
        assert publisher.flush(10)
        for number in range(100):
            # More than the hub takes in one turn is under way at any time.
            for i in range(8):
                first = (8 * number + i) * len(batch) + 1
                with contextlib.suppress(zmq.Again):
                    flood.send(frames.encode(frames.Publish(b"flood", first, batch)), zmq.NOBLOCK)
            began = time.monotonic()
            publisher.publish(evaluation(number))
            assert publisher.flush(10)
            waits.append(time.monotonic() - began)
    flood.close()
    context.term()
    # As above: with turns of any size it is as long as the flood.
    assert statistics.median(waits) < 0.05


def test_a_fetch_that_stands_is_answered_until_it_had_its_answers(bus: Bus) -> None:
    import zmq

    bus.hub()
    context = zmq.Context()
    reader = context.socket(zmq.DEALER)
    reader.linger = 0
    reader.connect(bus.endpoint)
    answers: list[frames.Events] = []
    with trialbus.Publisher(bus.endpoint) as publisher, trialbus.Link(bus.endpoint) as link:
        reader.send(
            frames.encode(
                frames.Fetch(7, 0, ["evaluation_complete/*/*"], wait_ms=60_000, answers=3)
            )
        )
        until(lambda: hub_status(link).parked == 1, 10, "a parked fetch")
        for step in range(4):
            publisher.publish(evaluation(step))
            assert publisher.flush(10)
            if step < 3:
                answer = frames.decode_to_client(reader.recv())
                assert isinstance(answer, frames.Events)
                answers.append(answer)
        until(lambda: hub_status(link).parked == 0, 10, "no parked fetch")
    assert [step_of(record) for answer in answers for record in answer.records] == [0, 1, 2]
    assert [answer.next for answer in answers] == [1, 2, 3]
    assert [answer.more for answer in answers] == [True, True, False]
    assert not reader.poll(100)
    reader.close()
    context.term()


def test_a_fetch_too_many_is_refused_and_the_hub_goes_on(bus: Bus) -> None:
    import zmq

    bus.hub()
    context = zmq.Context()
    reader = context.socket(zmq.DEALER)
    reader.linger = 0
    reader.connect(bus.endpoint)
    with trialbus.Publisher(bus.endpoint) as publisher, trialbus.Link(bus.endpoint) as link:
        for request in range(64):
            reader.send(frames.encode(frames.Fetch(request, 0, ["*/*/*"], wait_ms=60_000)))
        until(lambda: hub_status(link).parked == 64, 10, "64 parked fetches")
        reader.send(frames.encode(frames.Fetch(64, 0, ["*/*/*"], wait_ms=60_000)))
        refused = frames.decode_to_client(reader.recv())
        assert isinstance(refused, frames.Refused)
        assert (refused.code, refused.about) == (frames.TOO_MANY, 64)
        publisher.publish(evaluation(0))
        assert publisher.flush(10)
        answer = frames.decode_to_client(reader.recv())
        assert isinstance(answer, frames.Events)
        assert [step_of(record) for record in answer.records] == [0]
    reader.close()
    context.term()


def test_a_subscriber_that_takes_its_time_misses_nothing_and_holds_up_nobody(bus: Bus) -> None:
    bus.hub()
    with (
        trialbus.subscribe(trialbus.EvaluationComplete, endpoint=bus.endpoint) as slow,
        trialbus.subscribe(trialbus.EvaluationComplete, endpoint=bus.endpoint) as quick,
        trialbus.Publisher(bus.endpoint) as publisher,
    ):
        slow.wait_ready()
        quick.wait_ready()
        for step in range(20_000):  # many times what its buffers hold
            publisher.publish(evaluation(step))
        assert publisher.flush(20)
        assert steps(quick, 20_000) == list(range(20_000))
        assert steps(slow, 20_000) == list(range(20_000))


def test_a_thousand_parked_subscribers_cost_nothing_while_nothing_happens(bus: Bus) -> None:
    import zmq

    hub = bus.hub()
    context = zmq.Context()
    context.set(zmq.MAX_SOCKETS, 2000)
    sockets = [context.socket(zmq.DEALER) for _ in range(1000)]
    with trialbus.Link(bus.endpoint) as link:
        link.wait_connected(20)
        for number, socket in enumerate(sockets):
            socket.linger = 0
            socket.connect(bus.endpoint)
            socket.send(frames.encode(frames.Fetch(1, 0, [f"prune/s/{number}"], wait_ms=60_000)))
        until(lambda: hub_status(link).parked == 1000, 30, "a thousand parked fetches")
    process = psutil.Process(hub.pid)
    before = sum(process.cpu_times()[:2])
    time.sleep(2.0)  # the idle time that is measured
    assert sum(process.cpu_times()[:2]) - before < 0.05
    for socket in sockets:
        socket.close()
    context.term()


@pytest.mark.parametrize("damage", ["truncated", "overwritten"])
def test_a_last_write_that_was_torn_is_taken_back_and_the_log_goes_on(
    bus: Bus, damage: str
) -> None:
    hub = bus.hub()
    with trialbus.Publisher(bus.endpoint) as publisher:
        for step in range(100):
            publisher.publish(evaluation(step))
            publisher.flush(10)
    hub.kill()
    wal = bus.directory / "log" / "events.db-wal"
    content = wal.read_bytes()
    torn = content[:-700] if damage == "truncated" else content[:-700] + os.urandom(700)
    wal.write_bytes(torn)
    hub.start()
    kept = logged_steps(bus)
    assert 0 < len(kept) < 100
    assert kept == list(range(len(kept)))
    with trialbus.Publisher(bus.endpoint) as publisher:
        publisher.publish(evaluation(1000))
        assert publisher.flush(20)
    assert logged_steps(bus) == [*kept, 1000]
