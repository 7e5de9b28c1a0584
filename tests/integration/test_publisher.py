"""A publisher loses no accepted event in threads, forks, a full outbox and on a full disk."""

from __future__ import annotations

import hashlib
import os
import resource
import shutil
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

import trialbus
from support.evaluations import get_step, list_logged_steps, make_evaluation, read_steps
from support.processes import Bus
from support.until import until
from trialbus.client.admin import hub_status
from trialbus.client.link import Link
from trialbus.client.ring_directory import create_ring
from trialbus.messages import codec
from trialbus.protocol import frames


def test_many_threads_may_publish_through_one_publisher(bus: Bus) -> None:
    bus.hub()
    with trialbus.Publisher(bus.endpoint) as publisher:

        def work(trial: int) -> None:
            for step in range(500):
                publisher.publish(make_evaluation(step, trial=trial))

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


def test_a_publisher_in_a_forked_child_has_an_identity_of_its_own(bus: Bus) -> None:
    bus.hub()
    with trialbus.Publisher(bus.endpoint) as publisher:
        publisher.publish(make_evaluation(0))
        child = os.fork()
        if child == 0:
            publisher.publish(make_evaluation(100))
            os._exit(0 if publisher.flush(10) else 1)
        for step in range(1, 50):
            publisher.publish(make_evaluation(step))
        assert os.waitpid(child, 0)[1] == 0
    records = list(trialbus.replay(endpoint=bus.endpoint))
    by_publisher: dict[bytes, list[tuple[int, int]]] = {}
    for record in records:
        by_publisher.setdefault(record.publisher, []).append((record.seq, get_step(record)))
    assert sorted(by_publisher.values(), key=len) == [[(1, 100)], [(i + 1, i) for i in range(50)]]


def test_a_full_outbox_does_what_its_rule_says(bus: Bus) -> None:
    raising = trialbus.Publisher(bus.endpoint, capacity=3, when_full="raise")
    blocking = trialbus.Publisher(bus.endpoint, capacity=3, when_full="block", block_s=0.2)
    dropping = trialbus.Publisher(bus.endpoint, capacity=3, when_full="drop_oldest")
    for publisher in (raising, blocking, dropping):
        for step in range(3):
            publisher.publish(make_evaluation(step))
    for publisher in (raising, blocking):
        with pytest.raises(trialbus.OutboxFullError, match="holds its 3 events"):
            publisher.publish(make_evaluation(3))
    dropping.publish(make_evaluation(3))
    assert dropping.dropped == 1
    bus.hub()
    for publisher in (raising, blocking, dropping):
        assert publisher.close(20)
    assert sorted(list_logged_steps(bus)) == sorted([0, 1, 2, 0, 1, 2, 1, 2, 3])


class Acks:
    """A part of a link that records the hub's acknowledgement of each batch."""

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
            publisher.publish(make_evaluation(step), at_once=False)
            hashlib.pbkdf2_hmac("sha256", b"a step of training", b"", 10_000)
        assert read_steps(inbox, 100) == list(range(100))
        until(lambda: not publisher.pending)
    assert acks.count <= 2 + (time.monotonic() - began) / 25e-3


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits another process's files")
def test_a_full_disk_is_told_to_publishers_and_costs_no_event(bus: Bus) -> None:
    hub = bus.hub()
    with (
        trialbus.Publisher(bus.endpoint) as publisher,
        trialbus.Link(bus.endpoint) as link,
    ):
        publisher.publish(make_evaluation(0))
        assert publisher.flush(20)
        written = max(file.stat().st_size for file in (bus.directory / "log").iterdir())
        _, hard = resource.prlimit(hub.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(hub.pid, resource.RLIMIT_FSIZE, (written + 200_000, hard))
        for step in range(1, 5000):
            publisher.publish(make_evaluation(step))
        until(lambda: publisher.refused, 20, "a word from the hub")
        acknowledged = 5000 - publisher.pending
        assert hub_status(link).counters["failed_commits"] > 0
        resource.prlimit(hub.pid, resource.RLIMIT_FSIZE, (hard, hard))
        assert publisher.flush(30)
    assert 0 < acknowledged < 5000
    assert list_logged_steps(bus) == list(range(5000))


@pytest.mark.skipif(shutil.which("unshare") is None, reason="a small disk needs unshare")
def test_a_disk_without_space_is_told_to_publishers_and_costs_no_event(bus: Bus) -> None:
    """A hub in a separate mount namespace, where the log is on a disk of three megabytes."""
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
        publisher.publish(make_evaluation(0))
        assert publisher.flush(20)
        for step in range(1, 5000):
            publisher.publish(make_evaluation(step))
        until(lambda: publisher.refused, 20, "a word from the hub")
        acknowledged = 5000 - publisher.pending
        assert hub_status(link).counters["failed_commits"] > 0
        # Its disk as the hub sees it.
        Path(f"/proc/{process.pid}/root{log}/ballast").unlink()
        assert publisher.flush(30)
    assert 0 < acknowledged < 5000
    assert list_logged_steps(bus) == list(range(5000))


def test_of_a_damaged_ring_the_intact_events_are_sent_and_the_loss_is_counted(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    ring = create_ring(bus.endpoint, b"d" * 16)
    assert ring is not None
    events = [make_evaluation(step) for step in range(1, 5)]
    for seq, event in enumerate(events, 1):
        ring.append(seq, event.topic.encode(), codec.encode(event))
    ring.close()
    second = codec.encode(events[1])
    content = ring.path.read_bytes()
    ring.path.write_bytes(content.replace(second, second.replace(b"loss", b"gain")))
    bus.hub()
    with trialbus.Publisher(bus.endpoint), Link(bus.endpoint) as link:
        until(lambda: not ring.path.exists())
        assert hub_status(link).counters["lost"] == 1
    assert list_logged_steps(bus) == [1, 3, 4]
    assert "1 are damaged and not sent" in caplog.text


@pytest.mark.skipif(shutil.which("unshare") is None, reason="a full disk needs unshare")
@pytest.mark.parametrize("end", ["stopped", "killed"])
def test_a_hub_that_starts_on_a_full_disk_serves_what_it_has_and_takes_more_when_there_is_space(
    bus: Bus, end: str
) -> None:
    log = bus.directory / "log"
    log.mkdir()
    fill = f"cat /dev/zero > {log}/ballast; head -c 4096 /dev/zero >> {log}/ballast"
    hub = f"{sys.executable} -m trialbus.hub --endpoint {bus.endpoint} --dir {log}"
    first = f"{hub} & until [ -e {bus.directory}/go ]; do sleep 0.1; done"
    signal_ = {"stopped": "TERM", "killed": "KILL"}[end]
    script = (
        f"mount -t tmpfs -o size=3m none {log} && {first}; kill -{signal_} $!; wait $!;"
        f"({fill}) 2> {bus.directory}/full; touch {bus.directory}/filled; {hub} &"
        f" until [ -e {bus.directory}/space ]; do sleep 0.1; done; rm {log}/ballast; wait"
    )
    process = bus.run("hub", ["unshare", "--mount", "--map-root-user", "sh", "-c", script])
    try:
        with (
            trialbus.Publisher(bus.endpoint) as publisher,
            trialbus.Link(bus.endpoint) as link,
        ):
            for step in range(20):
                publisher.publish(make_evaluation(step))
            assert publisher.flush(20)
            (bus.directory / "go").touch()
            until((bus.directory / "filled").exists, 20, "a full disk")
            publisher.publish(make_evaluation(20))
            until(lambda: publisher.refused, 20, "a word from the hub")
            assert hub_status(link).end == 20
            assert list_logged_steps(bus) == list(range(20))
            (bus.directory / "space").touch()
            assert publisher.flush(30)
        assert list_logged_steps(bus) == list(range(21))
    finally:
        os.killpg(process.pid, signal.SIGKILL)
