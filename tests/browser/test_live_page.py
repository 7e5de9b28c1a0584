"""The live page in a real browser, on real studies."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from axe_playwright_python.sync_playwright import Axe  # pyright: ignore[reportMissingTypeStubs]
from optuna.trial import TrialState
from playwright.sync_api import Browser, Locator, expect
from playwright.sync_api import Page as BrowserPage

import trialbus
from support.client import SPEC, Client, load_study, start_optimizer
from support.monitor import Page
from support.processes import Bus
from support.until import until
from trialbus.protocol import security
from trialbus_services.optimizer.attributes import PRUNED_BY
from trialbus_services.views.formats import format_clock, format_done, format_value

OpenPage = Callable[..., BrowserPage]
Screenshot = Callable[[BrowserPage, str], Path]

STUDY = SPEC.name
SLOW_MS = 30_000

TRAINER = """
import sys, time, trialbus
with trialbus.attach() as trial:
    print("<b>hello</b> from", trial.number, flush=True)
    for step in range(trial.budget):
        trial.report(step, {"loss": trial.params["x"] ** 2 + 1 / (step + 1)})
        time.sleep(0.05)
"""
CONFIG = """
name: quadratic <b>bold</b>/1
n_trials: 4
budget: 12
objective: {metric: loss, direction: minimize}
params:
  x: {type: float, low: -3, high: 3}
"""


@pytest.fixture
def rough_page(browser: Browser) -> Iterator[BrowserPage]:
    """A page that may print errors: of refused requests, or of a stopped monitor."""
    with browser.new_context(viewport={"width": 1280, "height": 800}) as context:
        yield context.new_page()


def seen(page: BrowserPage, trial: int) -> int:
    """Return how many points of a trial's curve the page was sent."""
    row = page.locator(f"tr[data-trial='{trial}']")
    return int(row.get_attribute("data-points") or 0) if row.count() else 0


def row(page: BrowserPage, trial: int) -> Locator:
    return page.locator(f"tr[data-trial='{trial}']")


def assert_accessible(page: BrowserPage) -> None:
    found = Axe().run(page)  # pyright: ignore[reportUnknownMemberType]
    assert not found.violations_count, found.generate_report()


def test_a_study_is_followed_from_its_first_evaluation_to_its_end(
    bus: Bus, page: BrowserPage, screenshot: Screenshot
) -> None:
    (bus.directory / "train.py").write_text(TRAINER)
    study = bus.directory / "conf" / "study"
    study.mkdir(parents=True)
    (study / "mine.yaml").write_text(CONFIG)
    bus.hub()
    monitor = Page(bus)
    page.goto(monitor.url)
    expect(page.get_by_text("No study yet")).to_be_visible(timeout=SLOW_MS)
    bus.service(
        "study",
        "--config-dir=conf",
        "study=mine",
        f"trainer.command=[{sys.executable},train.py]",
        "worker.slots=2",
        "pruner=none",
    )
    expect(page.locator("#curves .scatterlayer .trace").first).to_be_visible(timeout=SLOW_MS)
    expect(page.locator("#workers .slot.busy").first).to_be_visible(timeout=SLOW_MS)
    screenshot(page, "live-running")
    page.get_by_role("button", name="Trial 0: details and log").click()
    expect(page.locator("#log")).to_contain_text("<b>hello</b> from 0", timeout=SLOW_MS)
    page.keyboard.press("Escape")
    expect(page.locator("#state")).to_have_text("exhausted", timeout=SLOW_MS)
    for trial in range(4):
        assert seen(page, trial) == 12
        expect(row(page, trial).locator(".state")).to_have_text("complete")
    expect(page.locator("#actions")).to_be_hidden()
    assert page.locator("#study").input_value() == "quadratic <b>bold</b>/1"
    screenshot(page, "live-finished")


def test_no_point_is_lost_or_doubled_while_hub_monitor_and_browser_come_and_go(
    bus: Bus, client: Callable[..., Client], rough_page: BrowserPage
) -> None:
    page = rough_page
    hub = bus.hub()
    service = start_optimizer(bus)
    worker = client()
    worker.submit(msgspec.structs.replace(SPEC, budget=200))
    trial = worker.ask()
    monitor = Page(bus)
    page.goto(monitor.url)
    worker.report(trial, 0, loss=1.0)
    until(lambda: seen(page, 0) == 1, 30, "the first point")
    hub.kill()
    for step in range(1, 20):
        worker.report(trial, step, loss=1.0 / (step + 1))
    expect(page.locator("#connection")).to_contain_text("hub does not answer", timeout=SLOW_MS)
    hub.start()
    until(lambda: seen(page, 0) == 20, 30, "the points from meanwhile")
    expect(page.locator("#connection")).to_have_text("live", timeout=SLOW_MS)
    page.evaluate("window.sameOne = true")
    monitor.process.kill()
    for step in range(20, 40):
        worker.report(trial, step, loss=1.0 / (step + 1))
    assert worker.publisher.flush(20)
    monitor.restart()
    until(lambda: seen(page, 0) == 40, 30, "the points from meanwhile")
    assert page.evaluate("window.sameOne")  # the page was not loaded again
    worker.report(trial, 40, loss=0.01)
    until(lambda: seen(page, 0) == 41, 30, "the point after it")
    page.reload()
    until(lambda: seen(page, 0) == 41, 30, "all points at once")
    assert service.running


def test_the_printed_url_brings_the_buttons_and_its_token_leaves_the_address_bar(
    bus: Bus, client: Callable[..., Client], page: BrowserPage
) -> None:
    bus.hub()
    start_optimizer(bus)
    worker = client()
    worker.submit()
    worker.report(worker.ask(), 0, loss=2.0)
    monitor = Page(bus)
    page.goto(monitor.url)
    expect(page.locator("#state")).to_have_text("running", timeout=SLOW_MS)
    expect(page.get_by_role("link", name="Log in to act")).to_be_visible()
    expect(page.locator("#actions")).to_be_hidden()
    assert_accessible(page)
    page.goto(monitor.url_with_token)
    assert page.url.startswith(monitor.url)
    assert "token" not in page.url
    expect(page.get_by_role("button", name="Stop the study")).to_be_visible(timeout=SLOW_MS)
    expect(page.get_by_role("link", name="Log in to act")).to_be_hidden()


def test_a_study_is_steered_by_clicks(
    bus: Bus, client: Callable[..., Client], rough_page: BrowserPage, screenshot: Screenshot
) -> None:
    page = rough_page
    bus.hub()
    start_optimizer(bus, "optimizer.ahead=0")  # else one suggestion comes before what is enqueued
    worker = client()
    worker.submit()
    trial = worker.ask()
    worker.report(trial, 0, loss=2.0)
    page.goto(Page(bus).url_with_token)

    page.get_by_role("button", name="Pause").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Pause").click()
    page.get_by_role("dialog").get_by_role("button", name="Pause").click()
    expect(page.locator("#state")).to_have_text("paused", timeout=SLOW_MS)

    page.get_by_role("button", name="Enqueue a trial").click()
    page.get_by_label("x").fill("7")
    page.get_by_role("button", name="Enqueue", exact=True).click()
    expect(page.locator("#enqueue-error")).to_contain_text("params.x 7.0 is outside of")
    assert_accessible(page)
    screenshot(page, "live-enqueue")
    page.get_by_label("x").fill("-1.5")
    page.get_by_label("kind").select_option("b")
    page.get_by_role("button", name="Enqueue", exact=True).click()
    (waiting,) = until(lambda: load_study(bus).get_trials(states=(TrialState.WAITING,)), 20)
    assert waiting.system_attrs["fixed_params"] == {"x": -1.5, "kind": "b"}

    # By keyboard alone: the button of the trial, prune, and the answer to the question.
    page.get_by_role("button", name="Trial 0: details and log").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#log")).to_contain_text("No log of the trial on this machine")
    page.get_by_role("button", name="Prune").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#confirm-title")).to_have_text("Prune trial 0?")
    page.locator("#confirm-yes").focus()
    page.keyboard.press("Enter")
    assert worker.next(trialbus.Prune, trial=0).by
    expect(page.locator("#trial-details")).to_contain_text("stopping", timeout=SLOW_MS)
    worker.finish(trial, "pruned")
    expect(row(page, 0).locator(".state")).to_have_text("pruned", timeout=SLOW_MS)
    page.keyboard.press("Escape")

    page.get_by_role("button", name="Resume").click()
    expect(page.locator("#state")).to_have_text("running", timeout=SLOW_MS)
    assert worker.ask().params == {"x": -1.5, "kind": "b"}
    page.get_by_role("button", name="Stop the study").click()
    page.get_by_role("dialog").get_by_role("button", name="Stop the study").click()
    worker.next(trialbus.Stop, study=STUDY)
    worker.finish(worker_trial(worker), "pruned")
    expect(page.locator("#state")).to_have_text("stopped", timeout=SLOW_MS)
    until(lambda: PRUNED_BY in load_study(bus).trials[0].user_attrs, 20)


def worker_trial(worker: Client) -> trialbus.TrialAssigned:
    """Return the newest trial that was handed out."""
    *_, newest = trialbus.replay(trialbus.TrialAssigned, link=worker.link)
    assert isinstance(newest.event, trialbus.TrialAssigned)
    return newest.event


def test_the_page_is_readable_in_light_and_dark_and_on_a_phone(
    bus: Bus, client: Callable[..., Client], open_page: OpenPage, screenshot: Screenshot
) -> None:
    bus.hub()
    start_optimizer(bus)
    worker = client()
    worker.submit()
    worker.run_one()
    worker.finish(worker.ask(), "failed", error="Traceback:\nValueError: it exploded")
    worker.report(worker.ask(), 0, loss=1.0)
    monitor = Page(bus)
    for name, width, scheme in (
        ("light", 1280, "light"),
        ("dark", 1280, "dark"),
        ("phone", 390, "light"),
        ("phone-dark", 390, "dark"),
    ):
        page = open_page(viewport={"width": width, "height": 844}, color_scheme=scheme)
        page.goto(monitor.url)
        expect(page.locator("#curves .scatterlayer .trace").first).to_be_visible(timeout=SLOW_MS)
        expect(page.locator("#rows")).to_contain_text("ValueError: it exploded")
        assert_accessible(page)
        assert page.evaluate("document.documentElement.scrollWidth") == width
        screenshot(page, f"live-{name}")
        page.get_by_role("button", name="Trial 1: details and log").click()
        expect(page.locator("#trial-details")).to_contain_text("it exploded")
        assert_accessible(page)
        screenshot(page, f"live-{name}-trial")


def test_the_page_formats_values_and_durations_as_the_terminal_does(
    bus: Bus, page: BrowserPage
) -> None:
    bus.hub()
    page.goto(Page(bus).url)
    values = [0, 64, 1234567, 2e7, 0.5, -0.123456789, 99999.7, 123456.78, 1e-4, 1.5e-5, 3.25e22]
    seconds = [0, 59.6, 60, 3599, 3723, 93784]
    done = [(6, 12), (6, None), (6, 2)]
    formatted = page.evaluate(
        """async ([values, seconds, done]) => {
            const { formatClock, formatDone, formatValue } = await import("/static/formats.js");
            return [
                values.map((value) => formatValue(value, 5)),
                seconds.map(formatClock),
                done.map(([n, total]) => formatDone(n, total)),
            ];
        }""",
        [values, seconds, done],
    )
    assert formatted == [
        [format_value(v, 5) for v in values],
        [format_clock(s) for s in seconds],
        [format_done(n, total) for n, total in done],
    ]


def test_only_a_browser_with_the_token_of_the_config_gets_in(
    bus: Bus, page: BrowserPage, screenshot: Screenshot
) -> None:
    bus.hub()
    monitor = Page(bus, "monitor.token=open-sesame-please")
    assert monitor.get("/stream")[0] == monitor.get("/log")[0] == 401
    page.goto(monitor.url)
    page.get_by_label("Token").fill("open-sesame-pleasf")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("alert")).to_have_text("That is not the token.", timeout=SLOW_MS)
    assert_accessible(page)
    screenshot(page, "live-login")
    page.get_by_label("Token").fill("open-sesame-please")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_text("No study yet")).to_be_visible(timeout=SLOW_MS)
    (cookie,) = page.context.cookies()
    assert (cookie.get("httpOnly"), cookie.get("sameSite")) == (True, "Strict")
    assert "open-sesame" not in cookie.get("value", "")


def test_a_listener_s_page_has_no_buttons_and_its_wishes_are_refused(
    bus: Bus, page: BrowserPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = bus.directory / "keys"
    for name in ("hub", "service", "listener"):
        security.create_keys(folder, name, "listener" if name == "listener" else "service")
    bus.hub("--keys", str(folder))
    monitor = Page(bus, "bus=curve", f"bus.keys.dir={folder}", "bus.keys.service=listener")
    _use(monkeypatch, folder, "service")
    worker = Client(bus)
    worker.submit()
    page.goto(monitor.url_with_token)
    expect(page.locator("#connection")).to_have_text("live", timeout=SLOW_MS)
    expect(page.locator("#figures")).to_contain_text("0/8", timeout=SLOW_MS)
    until(lambda: page.locator("#workers li").first.inner_text() == "scripted worker", 20)
    expect(page.locator("#actions")).to_be_hidden()
    code, text = monitor.send_action({"action": "stop", "study": STUDY})
    assert (code, "is of a listener" in text) == (403, True)
    worker.close()


def _use(monkeypatch: pytest.MonkeyPatch, folder: Path, name: str) -> None:
    monkeypatch.setenv(security.KEY_VARIABLE, str(folder / f"{name}.key"))
    monkeypatch.setenv(security.HUB_KEY_VARIABLE, str(folder / "hub.pub"))
