"""The live page's server, over real sockets, without a browser."""

from __future__ import annotations

import signal
from collections.abc import Callable
from itertools import islice
from typing import Any

import pytest

import trialbus
from support.client import SPEC, Client, start_optimizer
from support.monitor import Page
from support.processes import Bus
from trialbus.client.admin import hub_status

STUDY = SPEC.name
WRONG: list[tuple[Any, int, str]] = [
    ({"action": "dance", "study": STUDY}, 400, "dance"),
    ({"action": "pause", "study": "nobody's"}, 409, "does not run"),
    ({"action": "prune", "study": STUDY, "trial": 7}, 409, "trial 7 does not run"),
    ({"action": "prune", "study": STUDY, "trial": "0"}, 400, "trial"),
    ({"action": "enqueue", "study": STUDY, "params": {"x": "9"}}, 400, "params.x 9.0 is outside"),
    ({"action": "enqueue", "study": STUDY, "params": {"x": "a"}}, 400, "'a' is not a number"),
    ({"action": "enqueue", "study": STUDY, "params": {"y": 1}}, 400, "params.y is not a param"),
    ([], 400, ""),
    (b'{"action": "pause", "study": "\xff"}', 400, ""),
    (b"[" * 100_000, 400, ""),
]


@pytest.fixture
def worker(bus: Bus, client: Callable[[], Client]) -> Client:
    """A scripted worker with a running study, and a trial with a single evaluation."""
    bus.hub()
    start_optimizer(bus)
    worker = client()
    worker.submit()
    worker.report(worker.ask(), 0, loss=1.0)
    return worker


def until_known(page: Page) -> None:
    """Wait until the page has folded the trial that runs."""
    with page.stream(f"?study={STUDY}") as messages:
        for event, data in messages:
            if event == "changes" and data["study"] and data["study"]["points"]:
                return


def test_an_action_from_another_site_or_another_host_name_is_refused(
    bus: Bus, worker: Client
) -> None:
    page = Page(bus)
    until_known(page)
    pause = {"action": "pause", "study": STUDY}
    assert page.send_action(pause, {"Origin": "http://evil.example"})[0] == 403
    assert page.send_action(pause, {"Sec-Fetch-Site": "cross-site"})[0] == 403
    for host in ("evil.example", "localhost.evil.example", "user@localhost", "[::2]:80"):
        assert page.get("/", {"Host": host})[0] == 400, host
    for host in ("localhost", f"LOCALHOST:{page.port}", f"[::1]:{page.port}", "127.0.0.1:1"):
        assert page.get("/", {"Host": host})[0] == 200, host
    assert worker.publisher.flush(10)
    assert not list(trialbus.replay(trialbus.Pause, link=worker.link))
    assert page.send_action(pause, {"Origin": page.url.rstrip("/")}) == (
        200,
        '{"event":"pause","sent":true}',
    )
    assert worker.next(trialbus.Pause).by


def test_on_loopback_everybody_reads_and_only_the_printed_token_lets_act(
    bus: Bus, worker: Client
) -> None:
    page = Page(bus)
    until_known(page)
    pause = {"action": "pause", "study": STUDY}
    for cookie in ("", f"trialbus_monitor_{page.port}=guessed"):
        code, text = page.send_action(pause, {"Cookie": cookie})
        assert code == 401
        assert "?token=... that `trialbus monitor` printed" in text
        with page.stream(headers={"Cookie": cookie}) as messages:
            event, hello = next(messages)
        assert (event, hello) == ("hello", {"logged_in": False, "endpoint": bus.endpoint})
    assert page.get(f"/log?study={STUDY}&trial=0")[0] == 200
    wrong = page.get_headers("/?token=guessed")
    assert (wrong["location"], "set-cookie" in wrong) == ("/login?wrong", False)
    assert worker.publisher.flush(10)
    assert not list(trialbus.replay(trialbus.Pause, link=worker.link))

    target = page.url_with_token.removeprefix(page.url.rstrip("/")) + f"&study={STUDY}"
    right = page.get_headers(target)
    assert right["location"] == f"/?study={STUDY}"  # without the token
    attributes = set(right["set-cookie"].lower().split("; ")[1:])
    assert {"httponly", "samesite=strict"} <= attributes
    with page.stream(headers={"Cookie": page.log_in()}) as messages:
        assert next(messages)[1]["logged_in"]
    assert page.send_action(pause)[0] == 200
    assert worker.next(trialbus.Pause).by


def test_a_token_of_the_config_closes_the_page_and_is_not_printed(bus: Bus) -> None:
    bus.hub()
    page = Page(bus, "monitor.token=open-sesame-please")
    assert "open-sesame" not in page.process.printed()
    assert page.get("/stream")[0] == page.get("/log")[0] == 401
    assert page.get_headers("/")["location"] == "/login"
    assert "set-cookie" in page.get_headers("/?token=open-sesame-please")
    assert "set-cookie" not in page.get_headers("/?token=open-sesame-pleasf")


def test_a_wrong_host_name_is_refused_with_the_key_that_allows_it_and_the_security_headers(
    bus: Bus,
) -> None:
    bus.hub()
    page = Page(bus)
    wrong_host = {"Host": "evil.example:80"}
    status, text = page.get("/", wrong_host)
    assert status == 400
    assert "'evil.example:80'" in text
    assert f"http://localhost:{page.port}/" in text
    assert "monitor.host" in text
    page_headers, refusal_headers = page.get_headers("/"), page.get_headers("/", wrong_host)
    protected = {
        "content-security-policy",
        "x-content-type-options",
        "referrer-policy",
        "cross-origin-resource-policy",
        "cross-origin-opener-policy",
    }
    assert protected <= refusal_headers.keys()
    assert {n: page_headers[n] for n in protected} == {n: refusal_headers[n] for n in protected}
    assert refusal_headers["content-type"].startswith("text/plain")


@pytest.mark.usefixtures("worker")
def test_what_cannot_be_done_is_answered_with_the_reason(bus: Bus) -> None:
    page = Page(bus)
    until_known(page)
    for body, code, why in WRONG:
        found, text = page.send_action(body)
        assert (found, why in text) == (code, True), (body, text)
    with page.stream("?study=nobody&last=x:y") as messages:
        assert [event for event, _ in islice(messages, 2)]


@pytest.mark.usefixtures("worker")
def test_the_log_of_a_trial_is_found_by_its_number_and_nothing_else_is(bus: Bus) -> None:
    page = Page(bus)
    until_known(page)
    folder = bus.directory / "log" / "logs" / "trials" / STUDY
    folder.mkdir(parents=True)
    secret = bus.directory / "secret"
    secret.write_text("secret")
    (folder / "0-1.log").symlink_to(secret)
    (folder / "0-0.log").write_text("<b>step 0</b>\n")
    base = f"/log?study={STUDY}&trial="
    assert page.get(f"{base}0") == (200, '{"text":"<b>step 0</b>\\n","end":14}')
    with (folder / "0-0.log").open("a") as log:
        log.write("step 1\n")
    assert page.get(f"{base}0&after=14") == (200, '{"text":"step 1\\n","end":21}')
    for path in (
        f"{base}0&attempt=1",  # a link to elsewhere
        f"{base}3",
        f"{base}../../../secret",
        f"{base}0/../../../../../secret",
        "/log?study=../../..&trial=0",
        "/static/../app.py",
        "/static/%2e%2e/app.py",
    ):
        code, text = page.get(path)
        assert code == 404 or "No log of the trial on this machine" in text, path
        assert '"text"' not in text, path


def test_any_number_of_browsers_costs_the_hub_one_subscription(bus: Bus, worker: Client) -> None:
    page = Page(bus)
    until_known(page)
    alone = hub_status(worker.link).parked
    streams = [page.stream(f"?study={STUDY}") for _ in range(5)]
    for stream in streams:
        events = [event for event, _ in islice(stream.__enter__(), 3)]
        assert "changes" in events
    assert hub_status(worker.link).parked == alone
    for stream in streams:
        stream.__exit__(None, None, None)


def test_another_log_behind_the_hub_makes_every_page_begin_anew(bus: Bus, worker: Client) -> None:
    page = Page(bus)
    with page.stream(f"?study={STUDY}") as messages:
        assert any(event == "changes" for event, _ in messages)
        hub = bus.processes["hub"]
        hub.kill()
        for file in (bus.directory / "log").glob("events.*"):
            file.unlink()
        hub.start()
        worker.link.wait_connected(20)
        assert any(event == "reset" for event, _ in messages)
        worker.publisher.publish(trialbus.Pause(study="new"))
        told = (data for event, data in messages if event == "changes")
        assert [study["name"] for study in next(told)["studies"]] == ["new"]


@pytest.mark.usefixtures("worker")
def test_ctrl_c_ends_it_at_once_with_browsers_connected(bus: Bus) -> None:
    page = Page(bus)
    with page.stream() as messages:
        next(messages)
        page.process.signal(signal.SIGINT)
        assert page.process.wait(20) == 0
    assert "Traceback" not in page.process.printed()


@pytest.mark.usefixtures("worker")
def test_a_port_that_is_taken_is_a_clear_error(bus: Bus) -> None:
    page = Page(bus)
    bus.processes["first"] = bus.processes.pop("monitor")
    second = bus.service("monitor", f"monitor.port={page.port}")
    assert second.wait(30) == 2
    assert (
        f"monitor.port: {page.port} on 127.0.0.1 cannot be bound: Address already in use ("
        in second.printed()
    )


def test_without_a_hub_it_says_so_and_ends(bus: Bus) -> None:
    process = bus.service("monitor", "monitor.port=0", "bus.connect_s=0.2")
    assert process.wait(30) == 1
    assert "error: no hub" in process.printed()
