"""Keys, roles and strangers, over real sockets."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import zmq

import trialbus
from support.commands import small_study
from support.processes import Bus, Managed
from support.raw_client import RawClient
from support.until import until
from trialbus.client.admin import hub_status
from trialbus.client.presence import Presence
from trialbus.messages import codec, events
from trialbus.protocol import frames, security
from trialbus.protocol.endpoint import check_bindable
from trialbus_services.config.settings import KeySettings


@pytest.fixture
def guarded(bus: Bus) -> Bus:
    """A hub that accepts only clients with a key."""
    folder = bus.directory / "keys"
    security.create_keys(folder, "hub", "service")
    security.create_keys(folder, "service", "service")
    security.create_keys(folder, "listener", "listener")
    security.create_keys(folder, "trainer", "trainer")
    security.create_keys(folder, "bound", "trainer", study="mine")
    security.create_keys(folder, "worker", "worker")
    security.create_keys(folder, "bound-worker", "worker", study="mine")
    bus.hub("--keys", str(folder))
    return bus


def keys(bus: Bus, name: str) -> security.ClientKeys:
    folder = bus.directory / "keys"
    hub = (folder / "hub.pub").read_text().strip()
    return security.ClientKeys(own=security.load_keys(folder / f"{name}.key"), hub=hub)


def link(bus: Bus, name: str) -> trialbus.Link:
    made = trialbus.Link(bus.endpoint, keys=keys(bus, name))
    made.wait_connected(20)
    return made


def evaluation(study: str = "mine") -> trialbus.EvaluationComplete:
    return trialbus.EvaluationComplete(study=study, trial=0, step=0, metrics={"loss": 1.0})


def make_keys(directory: Path) -> None:
    command = [sys.executable, "-m", "trialbus_services", "keys", "--dir", "keys", "init"]
    subprocess.run(command, cwd=directory, check=True, capture_output=True, timeout=30)


def request(study: str) -> trialbus.Event:
    return events.TrialRequested(study=study, request="r", session="s", worker="w", slot=0)


def assert_locked_out(client: trialbus.Link) -> None:
    with client, pytest.raises(trialbus.HubUnavailableError):
        client.wait_connected(1.0)


def test_a_stranger_without_keys_is_not_let_in(guarded: Bus) -> None:
    with link(guarded, "service"):
        assert_locked_out(trialbus.Link(guarded.endpoint))


def test_a_key_that_nobody_allowed_is_not_let_in(guarded: Bus, tmp_path: Path) -> None:
    own = security.load_keys(security.create_keys(tmp_path, "mallory", "service"))
    stranger = security.ClientKeys(own=own, hub=keys(guarded, "service").hub)
    assert_locked_out(trialbus.Link(guarded.endpoint, keys=stranger))


def test_a_client_that_expects_another_hub_does_not_talk_to_this_one(guarded: Bus) -> None:
    other = zmq.curve_keypair()[0].decode()
    mistaken = security.ClientKeys(own=keys(guarded, "service").own, hub=other)
    assert_locked_out(trialbus.Link(guarded.endpoint, keys=mistaken))


def test_a_public_key_without_its_secret_is_not_let_in(guarded: Bus) -> None:
    right = keys(guarded, "service")
    secret = zmq.curve_keypair()[1].decode()
    stolen = security.KeyPair(name="service", public=right.own.public, secret=secret)
    assert_locked_out(
        trialbus.Link(guarded.endpoint, keys=security.ClientKeys(own=stolen, hub=right.hub))
    )


def test_a_service_may_do_everything(guarded: Bus) -> None:
    with link(guarded, "service") as mine, trialbus.Publisher(link=mine) as publisher:
        publisher.publish(trialbus.Prune(study="mine", trial=0, step=0))
        assert publisher.flush(10)
        assert len(list(trialbus.replay(link=mine))) == 1
        assert hub_status(mine).end == 1


def test_a_listener_reads_and_publishes_nothing(guarded: Bus) -> None:
    with link(guarded, "service") as service, trialbus.Publisher(link=service) as publisher:
        publisher.publish(evaluation())
    with link(guarded, "listener") as mine:
        assert len(list(trialbus.replay(link=mine))) == 1
        publisher = trialbus.Publisher(link=mine)
        publisher.publish(evaluation())
        until(lambda: publisher.refused)
        with pytest.raises(trialbus.HubRefusedError, match="is a listener, which may not publish"):
            publisher.publish(evaluation())
        publisher.close()
        assert len(list(trialbus.replay(link=mine))) == 1


@pytest.mark.parametrize(
    ("who", "event", "why"),
    [
        ("trainer", evaluation("any"), None),
        ("bound", evaluation("mine"), None),
        ("bound", evaluation("other"), "is a trainer of study 'mine' only"),
        ("trainer", trialbus.Prune(study="mine", trial=0, step=0), "may not publish 'prune'"),
        (
            "trainer",
            trialbus.StudyFinished(study="mine", submission="1", reason="stopped"),
            "may not",
        ),
        ("worker", request("any"), None),
        ("worker", evaluation("any"), None),
        ("bound-worker", request("mine"), None),
        ("bound-worker", request("other"), "is a worker of study 'mine' only"),
        ("worker", trialbus.Prune(study="mine", trial=0, step=0), "may not publish 'prune'"),
    ],
    ids=[
        "any study",
        "its study",
        "another study",
        "a command",
        "an end",
        "a worker's request",
        "an evaluation of a worker's killed training",
        "a worker of its study",
        "a worker of another study",
        "a worker's command",
    ],
)
def test_a_trainer_or_worker_publishes_what_its_role_publishes(
    guarded: Bus, who: str, event: trialbus.Event, why: str | None
) -> None:
    with link(guarded, who) as mine:
        publisher = trialbus.Publisher(link=mine)
        publisher.publish(event)
        if why is None:
            assert publisher.flush(10)
        else:
            until(lambda: publisher.refused)
            with pytest.raises(trialbus.HubRefusedError, match=why):
                publisher.publish(event)
        publisher.close()


@pytest.mark.parametrize("name", ["bound", "trainer", "service"])
def test_an_event_of_another_study_than_its_topic_says_is_refused(guarded: Bus, name: str) -> None:
    body = msgspec.Raw(codec.encode(evaluation("other")))
    with RawClient(guarded.endpoint, keys=keys(guarded, name)) as client:
        client.send(frames.Publish(b"p" * 16, 1, [(evaluation("mine").topic, body)]))
        refused = client.receive()
    assert isinstance(refused, frames.Refused)
    assert "belongs under 'evaluation_complete/other/0'" in refused.reason
    with link(guarded, "service") as client, trialbus.Publisher(link=client) as publisher:
        publisher.publish(evaluation("last"))
        assert publisher.flush(10)
    with (
        link(guarded, "service") as client,
        trialbus.subscribe(link=client, start="earliest") as inbox,
    ):
        assert [record.topic for record in inbox.records(20)] == [evaluation("last").topic]


def test_a_trainer_reads_its_commands_and_nothing_else(guarded: Bus) -> None:
    with link(guarded, "bound") as mine:
        with trialbus.subscribe(trialbus.Prune, study="mine", link=mine) as inbox:
            inbox.wait_ready(10)
        for wrong in (
            trialbus.subscribe(trialbus.EvaluationComplete, study="mine", link=mine),
            trialbus.subscribe(trialbus.Prune, study="other", link=mine),
            trialbus.subscribe(link=mine),
        ):
            with pytest.raises(trialbus.HubRefusedError, match="bound"):
                wrong.wait_ready(10)


@pytest.mark.parametrize(
    ("who", "kind", "study", "why"),
    [
        ("bound", "trainer", "mine", None),
        ("bound", "trainer", "other", "is a trainer of study 'mine' only"),
        ("trainer", "optimizer", "", "is a trainer, which may not register as .optimizer"),
        ("listener", "trainer", "mine", "is a listener, which may not register as .trainer"),
        ("listener", "dashboard", "", None),
        ("listener", "worker", "", "is a listener, which may not register as .worker"),
        ("listener", "optimizer", "", "is a listener, which may not register as .optimizer"),
        ("worker", "worker", "any", None),
        ("worker", "trainer", "any", None),
        ("worker", "optimizer", "", "is a worker, which may not register as .optimizer"),
        ("bound-worker", "worker", "other", "is a worker of study 'mine' only"),
    ],
    ids=[
        "its study",
        "another study",
        "a service",
        "a listener's trial",
        "a listener",
        "a listener's worker",
        "a listener's optimizer",
        "a worker",
        "a worker's training",
        "a worker's optimizer",
        "a worker of another study",
    ],
)
def test_nobody_registers_as_what_it_is_not(
    guarded: Bus, who: str, kind: str, study: str, why: str | None
) -> None:
    with link(guarded, who) as mine:
        presence = Presence(link=mine, kind=kind, name="", ttl_s=5, study=study, trial=0, attempt=0)
        if why is None:
            presence.wait_registered(10)
        else:
            with pytest.raises(trialbus.HubRefusedError, match=why):
                presence.wait_registered(1)
        presence.close()


def receive_refusal(client: RawClient) -> frames.Refused:
    frame = client.receive()
    assert isinstance(frame, frames.Refused)
    return frame


def test_a_session_and_a_durable_name_belong_to_the_key_that_used_them_first(
    guarded: Bus,
) -> None:
    security.create_keys(guarded.directory / "keys", "other", "listener")
    hello = frames.Hello("s", "listener", "ada", ttl_ms=60_000)
    fetch = frames.Fetch(1, 0, ["*/*/*"], name="mine")
    with RawClient(guarded.endpoint, keys=keys(guarded, "listener")) as owner:
        owner.send(hello)
        assert owner.receive() == frames.Seen("s")
        owner.send(fetch)
        assert isinstance(owner.receive(), frames.Events)
        guarded.processes["hub"].restart()
        with RawClient(guarded.endpoint, keys=keys(guarded, "other")) as stranger:
            for frame in (hello, frames.Ping("s"), frames.Bye("s"), frames.Commit("mine", 0)):
                stranger.send(frame)
                refused = receive_refusal(stranger)
                assert refused.code == frames.FORBIDDEN
                assert "belongs to" in refused.reason
            stranger.send(fetch)
            assert "belongs to the key 'listener'" in receive_refusal(stranger).reason
        owner.send(frames.Ping("s"))
        assert owner.receive() == frames.Seen("s")
        owner.send(frames.Commit("mine", 0))
        assert owner.receive() == frames.Committed("mine", 0)
    with RawClient(guarded.endpoint, keys=keys(guarded, "service")) as service:
        service.send(frames.Commit("mine", 0))
        assert service.receive() == frames.Committed("mine", 0)


def test_a_key_that_is_taken_off_the_list_is_locked_out_at_once(guarded: Bus) -> None:
    allowed = guarded.directory / "keys" / "allowed.json"
    with link(guarded, "listener") as mine:
        inbox = trialbus.subscribe(link=mine)
        inbox.wait_ready(10)
        kept = {k: v for k, v in json.loads(allowed.read_text()).items() if v["name"] != "listener"}
        allowed.write_text(json.dumps(kept))
        with pytest.raises(trialbus.HubRefusedError, match="no longer"):
            trialbus.subscribe(link=mine).wait_ready(10)
    assert_locked_out(trialbus.Link(guarded.endpoint, keys=keys(guarded, "listener")))


def test_a_fetch_that_waits_is_not_answered_once_its_key_is_taken_off_the_list(
    guarded: Bus,
) -> None:
    allowed = guarded.directory / "keys" / "allowed.json"
    with (
        link(guarded, "service") as service,
        trialbus.Publisher(link=service) as publisher,
        RawClient(guarded.endpoint, keys=keys(guarded, "listener")) as listener,
    ):
        listener.send(frames.Fetch(1, 0, ["*/*/*"], wait_ms=60_000, answers=16))
        until(lambda: hub_status(service).parked == 1)
        kept = {k: v for k, v in json.loads(allowed.read_text()).items() if v["name"] != "listener"}
        allowed.write_text(json.dumps(kept))
        publisher.publish(evaluation())
        assert publisher.flush(10)
        refused = listener.receive()
        assert isinstance(refused, frames.Refused)
        assert (refused.code, refused.about) == (frames.FORBIDDEN, 1)


def test_a_connection_has_its_own_key_whatever_connection_had_the_routing_id_before(
    guarded: Bus,
) -> None:
    service_keys, listener_keys = keys(guarded, "service"), keys(guarded, "listener")
    with RawClient(guarded.endpoint, keys=service_keys, routing_id=b"me") as service:
        service.send(frames.AskStatus(1))
        assert isinstance(service.receive(), frames.Status)
    event = (
        "prune/mine/0",
        msgspec.Raw(codec.encode(trialbus.Prune(study="mine", trial=0, step=0))),
    )
    with RawClient(guarded.endpoint, keys=listener_keys, routing_id=b"me") as listener:
        listener.send(frames.Publish(b"p" * 16, 1, [event]))
        assert "is a listener, which may not publish" in receive_refusal(listener).reason


def test_a_list_of_keys_that_cannot_be_read_leaves_the_one_before_in_force(guarded: Bus) -> None:
    allowed = guarded.directory / "keys" / "allowed.json"
    whole = allowed.read_text()
    with link(guarded, "listener") as mine:
        trialbus.subscribe(link=mine).wait_ready(10)
        allowed.write_text(whole[: len(whole) // 2])
        trialbus.subscribe(link=mine).wait_ready(10)
        allowed.write_text("{}")
        with pytest.raises(trialbus.HubRefusedError, match="no longer"):
            trialbus.subscribe(link=mine).wait_ready(10)
        allowed.write_text(whole)
        trialbus.subscribe(link=mine).wait_ready(10)


def test_refusals_are_counted_and_the_rest_of_a_peer_s_frames_is_served(guarded: Bus) -> None:
    with link(guarded, "service") as service, link(guarded, "trainer") as trainer:
        for _ in range(3):
            with pytest.raises(trialbus.HubRefusedError):
                trialbus.subscribe(link=trainer).wait_ready(10)
        found = hub_status(service)
        assert found.counters["refused_403"] == 3
        assert "is a trainer, which may not read" in found.last_refused
        with trialbus.Publisher(link=trainer) as publisher:
            publisher.publish(evaluation())
            assert publisher.flush(10)


def test_a_key_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = security.create_keys(tmp_path, "me", "listener")
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o644)
    with pytest.raises(trialbus.SpecError, match=r"can be read by others \(mode 644\)"):
        security.load_keys(path)


def test_a_key_of_a_name_that_is_taken_is_not_overwritten(tmp_path: Path) -> None:
    before = security.create_keys(tmp_path, "me", "listener").read_bytes()
    with pytest.raises(trialbus.SpecError, match="exists already"):
        security.create_keys(tmp_path, "me", "service")
    assert (tmp_path / "me.key").read_bytes() == before


def test_half_of_the_variables_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(security.KEY_VARIABLE, "somewhere")
    with pytest.raises(trialbus.SpecError, match="set both of them, or neither"):
        security.load_client_keys()


def test_with_keys_an_address_that_strangers_can_reach_may_be_bound() -> None:
    check_bindable("tcp://0.0.0.0:5760", guarded=True, insecure=False)
    with pytest.raises(trialbus.SpecError):
        check_bindable("tcp://0.0.0.0:5760", guarded=False, insecure=False)


def test_a_whole_study_runs_with_keys_by_one_line_of_config(bus: Bus) -> None:
    make_keys(bus.directory)
    study = small_study(steps=2, step_s=0.0, n_trials=2)
    process = bus.service("study", *study, "bus=curve", "bus.keys.dir=keys")
    assert process.wait(60) == 0, process.printed()
    assert "2 complete, 0 pruned, 0 failed" in process.printed()


@pytest.mark.parametrize("files", [("worker.key", "trainer.key"), ("worker.key",)])
def test_a_host_of_workers_needs_no_service_key(bus: Bus, files: tuple[str, ...]) -> None:
    make_keys(bus.directory)
    copied = bus.directory / "copied"
    copied.mkdir()
    for name in ("hub.pub", *files):
        shutil.copy2(bus.directory / "keys" / name, copied / name)
    study = small_study(steps=2, step_s=0.0, n_trials=3)
    bus.service("worker", *study, "bus=curve", "bus.keys.dir=copied", "worker.slots=1")
    process = bus.service(
        "study", *study, "bus=curve", "bus.keys.dir=keys", "launcher=none", "study.max_failures=1"
    )
    assert process.wait(60) == 0, process.printed()
    assert "3 complete, 0 pruned, 0 failed" in process.printed()


def with_environment(bus: Bus, name: str, *overrides: str, key: str) -> Managed:
    """Start a service that finds the hub and its key in the environment alone."""
    variables = {
        "TRIALBUS_ENDPOINT": bus.endpoint,
        "TRIALBUS_KEY": f"keys/{key}.key",
        "TRIALBUS_HUB_KEY": "keys/hub.pub",
    }
    command = ["env", *(f"{variable}={value}" for variable, value in variables.items())]
    command += [sys.executable, "-m", "trialbus_services", name, "bus.dir=log"]
    return bus.run(name, [*command, *overrides])


def test_services_find_the_hub_and_their_keys_in_the_environment(bus: Bus) -> None:
    make_keys(bus.directory)
    bus.hub("--keys", "keys")
    study = small_study(steps=2, step_s=0.0, n_trials=3)
    (bus.directory / "elsewhere").mkdir()
    worker = ["worker.slots=1", "trainer.cwd=elsewhere"]
    with_environment(bus, "worker", *study, *worker, key="worker")
    process = with_environment(
        bus, "study", *study, "launcher=none", "study.max_failures=1", key="service"
    )
    assert process.wait(60) == 0, process.printed()
    assert "3 complete, 0 pruned, 0 failed" in process.printed()


def test_a_study_with_keys_from_the_environment_starts_no_hub_without_keys(bus: Bus) -> None:
    make_keys(bus.directory)
    process = with_environment(bus, "study", *small_study(), "bus.connect_s=1", key="service")
    assert process.wait(30) == 1
    assert "no hub answered at $TRIALBUS_ENDPOINT=" in process.printed()
    assert "it has to allow the key 'service'" in process.printed()
    assert not Path(bus.endpoint.removeprefix("ipc://")).exists()


def leave_unsent(bus: Bus, event: str) -> None:
    """Let a process accept an event and die before it can send the event."""
    code = (
        "import os, signal, trialbus\n"
        f"publisher = trialbus.Publisher({bus.endpoint!r})\n"
        f"publisher.publish(trialbus.{event})\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=False, timeout=30)


def test_a_worker_with_its_own_key_sends_what_its_killed_training_left_unsent(bus: Bus) -> None:
    make_keys(bus.directory)
    leave_unsent(bus, "EvaluationComplete(study='s', trial=0, step=7, metrics={'loss': 1.0})")
    bus.hub("--keys", str(bus.directory / "keys"))
    with (
        link(bus, "worker") as worker,
        trialbus.Publisher(link=worker),
        link(bus, "service") as service,
        trialbus.subscribe(start="earliest", link=service) as inbox,
    ):
        event = inbox.next(20)
    assert isinstance(event, trialbus.EvaluationComplete)
    assert event.step == 7


def test_a_worker_leaves_the_unsent_events_of_others_to_those_who_may_send_them(bus: Bus) -> None:
    make_keys(bus.directory)
    leave_unsent(bus, "Stop(study='s', reason='enough')")
    bus.hub("--keys", str(bus.directory / "keys"))
    with (
        link(bus, "service") as service,
        link(bus, "worker") as worker,
        trialbus.Publisher(link=worker),
        trialbus.subscribe(start="earliest", link=service) as inbox,
    ):
        # The worker has taken charge of what dead processes left, before the service begins.
        until(lambda: hub_status(service).counters.get("refused_403"))
        with trialbus.Publisher(link=service):
            event = inbox.next(20)
    assert isinstance(event, trialbus.Stop)
    assert event.reason == "enough"


def test_keys_that_exist_stay_when_a_newer_version_makes_the_missing_ones(tmp_path: Path) -> None:
    kept = security.create_keys(tmp_path / "keys", "service", "service").read_bytes()
    make_keys(tmp_path)
    assert (tmp_path / "keys" / "service.key").read_bytes() == kept
    assert {path.stem for path in (tmp_path / "keys").glob("*.key")} == {
        *("hub", "service", "worker", "trainer")
    }


@pytest.mark.parametrize(
    ("names", "worker", "trainer"),
    [
        (("service", "worker", "trainer"), "worker", "trainer"),
        (("service", "trainer"), "service", "trainer"),
        (("worker",), "worker", "worker"),
        ((), "worker", "trainer"),
    ],
    ids=["all", "made before there was a role for workers", "one for a host of workers", "none"],
)
def test_a_worker_uses_the_least_key_that_its_folder_has(
    tmp_path: Path, names: tuple[str, ...], worker: str, trainer: str
) -> None:
    for name in names:
        (tmp_path / f"{name}.key").touch()
    key_settings = KeySettings(dir=str(tmp_path))
    assert key_settings.get_name("worker") == worker
    assert key_settings.get_name("trainer") == trainer
    assert key_settings.get_name("optimizer") == "service"


def test_keys_that_are_missing_are_named_with_how_to_make_them(bus: Bus) -> None:
    process = bus.service("study", *small_study(), "bus=curve", "bus.keys.dir=keys")
    assert process.wait(30) == 2
    assert "trialbus keys" in process.printed()
