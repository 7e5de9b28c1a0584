"""Notifiers miss no end of a study, delay no process, and log failures."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

import trialbus
from support.endpoint import serve_endpoint
from support.stories import make_study_end, make_study_start
from support.until import until
from trialbus.client.admin import hub_status
from trialbus.messages import events
from trialbus.testing import TestBus
from trialbus_services.notify import Desktop, Notice, Notifier, Slack, Webhook
from trialbus_services.notify.factory import build_notifiers
from trialbus_services.notify.listener import Listener

NOTICE = Notice(
    study="digits",
    submission="1",
    reason="exhausted",
    metrics=["val/accuracy"],
    best_trials=[events.BestTrial(number=4, values=[0.987654321], params={"lr": 0.01})],
    counts=events.TrialCounts(complete=5, pruned=2, failed=1),
    host="node-3",
    paths=["/reports/digits/report.html"],
)


@pytest.fixture
def hub() -> Iterator[TestBus]:
    with TestBus() as made:
        yield made


@contextmanager
def listener(
    hub: TestBus, notifier: Notifier, name: str = "team", give_up_s: float = 60
) -> Generator[Listener]:
    """Run a listener with a known position in the log until the end of the block."""
    stop = threading.Event()
    with trialbus.Link(hub.endpoint) as link:
        made = Listener(name, notifier, link=link, stop=stop, first_s=0.02, give_up_s=give_up_s)
        until(lambda: f"notify-{name}" in durable(link), 10, "its durable name")
        try:
            yield made
        finally:
            stop.set()
            made.join(10)


def durable(link: trialbus.Link) -> dict[str, Any]:
    found: dict[str, Any] = hub_status(link).durable
    return found


def end(hub: TestBus, study: str) -> None:
    """Publish the events of a study from submission to report."""
    with trialbus.Publisher(hub.endpoint) as publisher:
        for event in (*make_study_start(study), make_study_end(study)):
            publisher.publish(event)
        publisher.publish(
            trialbus.ReportReady(study=study, submission="1", paths=[f"/reports/{study}.html"])
        )
        assert publisher.flush(10)


def test_an_endpoint_that_hangs_fails_and_recovers_is_told_each_study_once(hub: TestBus) -> None:
    with serve_endpoint("hang", 500, "close", 302, 429) as there:
        with listener(hub, Webhook(there.url, timeout_s=0.3)):
            end(hub, "first")
            end(hub, "second")
            until(lambda: len(there.seen) == 2, 20, "two notices")
        assert there.n_posts == 7
        first, second = there.seen
    assert (first["study"], second["study"]) == ("first", "second")
    assert first["title"] == "first: all trials done"
    assert "best loss 0.125 in trial 4 (x=0.5)" in first["text"]
    assert first["paths"] == ["/reports/first.html"]
    assert first["counts"] == {"complete": 5, "pruned": 2, "failed": 1}


def test_what_ended_while_nobody_listened_is_told_afterwards_and_once(hub: TestBus) -> None:
    told: list[str] = []

    def tell(notice: Notice) -> None:
        told.append(notice.study)

    end(hub, "before it was known")
    with listener(hub, tell):
        pass
    end(hub, "meanwhile")
    for _ in range(2):
        with listener(hub, tell):
            end(hub, "now")
            until(lambda: told[-1:] == ["now"], 10, "the newest notice")
    assert told == ["meanwhile", "now", "now"]


def test_one_that_hangs_holds_up_no_other(hub: TestBus) -> None:
    free = threading.Event()
    told: list[str] = []
    try:
        with (
            listener(hub, lambda notice: free.wait(30), name="stuck"),
            listener(hub, lambda notice: told.append(notice.study), name="other"),
        ):
            end(hub, "a")
            end(hub, "b")
            until(lambda: told == ["a", "b"], 10, "both notices")
            free.set()
    finally:
        free.set()


def test_told_to_stop_it_leaves_what_nobody_took_for_the_next_time(hub: TestBus) -> None:
    with serve_endpoint(*[503] * 1000) as there:
        with listener(hub, Webhook(there.url)):
            end(hub, "a")
            until(lambda: there.n_posts >= 2, 10, "two tries")
        there.answers.clear()
        assert there.seen == []
        with listener(hub, Webhook(there.url)):
            until(lambda: there.seen, 10, "the notice")


def test_a_notice_that_nobody_takes_is_passed_over_in_the_end(
    hub: TestBus, caplog: pytest.LogCaptureFixture
) -> None:
    with serve_endpoint(400) as there:
        with listener(hub, Webhook(there.url), give_up_s=0):
            end(hub, "bad")
            end(hub, "good")
            until(lambda: there.seen, 10, "the other notice")
        assert [body["study"] for body in there.seen] == ["good"]
    assert "gave up study 'bad'" in caplog.text
    assert "127.0.0.1 answered 400" in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.parametrize(
    "answer", ["hang", "close", 302, 307, 404, 500], ids=lambda answer: f"{answer}"
)
def test_a_post_that_was_not_taken_raises_without_the_secret_of_its_url(answer: Any) -> None:
    with serve_endpoint(answer) as there:
        with pytest.raises(ConnectionError, match=r"^127\.0\.0\.1 (answered|cannot)") as caught:
            Webhook(there.url, timeout_s=0.3)(NOTICE)
        assert "secret" not in str(caught.value)


def test_what_is_posted_is_json_whatever_the_values_are() -> None:
    best = events.BestTrial(number=0, values=[math.nan], params={"x": math.inf, "öä": "模型"})
    with serve_endpoint() as there:
        Webhook(there.url, headers={"Authorization": "Bearer 1"})(
            Notice(study="s", submission="1", best_trials=[best])
        )
    assert there.seen[0]["best_trials"][0] == {
        "number": 0,
        "values": [None],
        "params": {"x": None, "öä": "模型"},
    }
    assert there.headers[0]["Authorization"] == "Bearer 1"
    assert there.headers[0]["Content-Type"] == "application/json"


def test_slack_gets_a_message_in_which_names_are_only_text() -> None:
    nasty = Notice(study="<!channel> & co", submission="1", reason="failed", error="<x>")
    with serve_endpoint() as there:
        Slack(there.url)(nasty)
    assert there.seen[0]["text"].splitlines() == [
        "*&lt;!channel&gt; &amp; co: failed*",
        "0 complete, 0 pruned, 0 failed",
        "&lt;x&gt;",
        "no report: no reason given",
    ]


def test_the_desktop_shows_it_where_there_is_a_program_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    Desktop()(NOTICE)
    assert "notify-send is not installed" in caplog.text
    program = tmp_path / "notify-send"
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/shown\n')
    program.chmod(0o755)
    Desktop()(NOTICE)
    assert (tmp_path / "shown").read_text().splitlines() == [
        *("--app-name=trialbus", "--", "digits: all trials done"),
        "best val/accuracy 0.987654 in trial 4 (lr=0.01)",
        "5 complete, 2 pruned, 1 failed",
        "report node-3:/reports/digits/report.html",
    ]


def build(section: Any) -> dict[str, Notifier]:
    return build_notifiers(OmegaConf.create({"notify": section}))


def test_notifiers_of_one_s_own_are_found_beside_the_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_notifier.py").write_text(
        "class Own:\n    def __init__(self, to): self.to = to\n"
        "    def __call__(self, notice): self.to.append(notice.title)\n"
    )
    monkeypatch.chdir(tmp_path)
    made = build({"mine": {"_target_": "my_notifier.Own", "to": []}})["mine"]
    made(NOTICE)
    assert made.to == ["digits: all trials done"]  # type: ignore[attr-defined]


@pytest.mark.parametrize("section", [None, {}], ids=str)
def test_without_any_there_are_none(section: Any) -> None:
    assert build(section) == {}


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ([1], r"notify: \[1\] is not a mapping"),
        ({"a b": {"_target_": "x"}}, r"notify\.a b: is not a name"),
        ({"a": "slack"}, r"notify\.a: names no notifier \(expected a mapping"),
        ({"a": {"url": "x"}}, r"notify\.a: names no notifier"),
        (
            {"a": {"_target_": "nosuch.Thing"}},
            r"notify\.a\._target_: 'nosuch\.Thing' cannot .*'nosuch'",
        ),
        (
            {"a": {"_target_": "trialbus_services.notify.Webhook", "ur": "x"}},
            r"notify\.a: .*Webhook: TypeError: .*'ur'",
        ),
        (
            {"a": {"_target_": "trialbus_services.notify.Webhook", "url": "ftp://secret"}},
            r"notify\.a: .*ValueError: url is not http://<host>",
        ),
        ({"a": {"_target_": "builtins.dict"}}, r"notify\.a: builtins\.dict is not a notifier"),
        (
            {"a": {"_target_": "x", "url": "${oc.env:NO_SUCH_VARIABLE}"}},
            r"notify\.a\.url: needs the environment variable NO_SUCH_VARIABLE ",
        ),
    ],
    ids=str,
)
def test_a_wrong_notifier_is_named_by_its_key(section: Any, words: str) -> None:
    with pytest.raises(trialbus.SpecError, match=words) as caught:
        build(section)
    assert "secret" not in str(caught.value)


@pytest.fixture(autouse=True)
def logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "trialbus_services")
