"""Which values of a config are secret, and how they are masked."""

from __future__ import annotations

import logging

import pytest

from trialbus_services.config.secrets import (
    MaskingFormatter,
    is_secret,
    mask_message,
    mask_secrets,
    remember_secrets,
)

HOOK = "https://hooks.slack.com/services/T0/B1/c4n4ry"


@pytest.mark.parametrize(
    "key",
    [
        "monitor.token",
        "notify.slack.url",
        "+notify.mine.headers.X",
        "trainer.env.WANDB_API_KEY",
        "++trainer.env.my_key",
        "trainer.env.PGPASSWORD",
        "AWS_ACCESS_KEY_ID",
        "GITHUB_TOKEN",
        "client_secret",
        "wandb.api_key",
        "accessToken",
        "api-key",
    ],
)
def test_keys_of_secrets_are_known_by_section_and_name(key: str) -> None:
    assert is_secret(key)


@pytest.mark.parametrize(
    "key",
    [
        "storage.url",
        "notify.slack._target_",
        "trainer.env.TOKENIZERS_PARALLELISM",
        "trainer.env.KEYBOARD",
        "bus.keys.dir",
        "max_tokens",
        "tokenizer",
        "sort_key",
        "bus.keys.service",
    ],
)
def test_keys_of_other_values_are_left_alone(key: str) -> None:
    assert not is_secret(key)


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("postgresql://me:c4n4ry@h/d", "postgresql://me:***@h/d"),
        ("postgresql://me:c4@n4/r:y@h/d", "postgresql://me:***@h/d"),
        ("mysql://me:c4'n 4ry@h/d", "mysql://me:***@h/d"),
        ("mysql://h/d?password=c4n4ry&ssl=1", "mysql://h/d?password=***&ssl=1"),
        ("https://c4n4ry@example.org/x", "https://***@example.org/x"),
        ("storage.url=postgresql://me:c4n4ry@h/d", "storage.url=postgresql://me:***@h/d"),
        ("storage.url='mysql://me:c4'n4ry@h/d'", "storage.url='mysql://me:***@h/d'"),
        (f"notify.slack.url={HOOK}", "notify.slack.url=https://hooks.slack.com/***"),
        (f"+notify.hook.url='{HOOK}'", "+notify.hook.url=https://hooks.slack.com/***"),
        (f"+notify={{slack:{{url:{HOOK}}}}}", "+notify=***"),
        ("notify.mine.url=https://u:c4n4ry@h:1/x", "notify.mine.url=https://h:1/***"),
        ("trainer.env={A: 1, my_key: c4n4ry}", "trainer.env={A: 1, my_key: ***}"),
        ("trainer.env={API_KEY:'c4, n4ry'}", "trainer.env={API_KEY:***}"),
        ("+trainer.env.API_KEY=c4n4ry", "+trainer.env.API_KEY=***"),
        ("trainer.command=[a,--token,c4n4ry]", "trainer.command=[a,--token,***]"),
        ("python a.py --api-key c4n4ry -v", "python a.py --api-key *** -v"),
        ("python a.py --token=c4n4ry", "python a.py --token=***"),
        ("a=1,u='mysql://h/d?password=c4n4ry',b=2", "a=1,u='mysql://h/d?password=***',b=2"),
        (f"it posts to {HOOK}", "it posts to https://hooks.slack.com/***"),
        ("https://discord.com/api/webhooks/1/c4n4ry", "https://discord.com/***"),
        ("{'password': 'c4n4ry'}", "{'password': ***}"),
    ],
)
def test_secrets_in_texts_and_overrides_are_masked(text: str, masked: str) -> None:
    assert mask_secrets(text) == masked


@pytest.mark.parametrize(
    "text",
    [
        "storage.url=${oc.env:DATABASE_URL}",
        "notify.slack.url=${oc.env:SLACK_WEBHOOK_URL}",
        "postgresql+psycopg://${oc.env:USER}@localhost/optuna",
        "postgresql+psycopg://${oc.env:USER}:${oc.env:PGPASSWORD}@${host}/optuna",
        "https://${oc.env:GH_TOKEN}@example.org/",
        "trainer.env={API_KEY: ${oc.env:API_KEY}}",
        "notify=[slack,desktop]",
        "bus.endpoint=tcp://127.0.0.1:5760",
        "sqlite:///studies.db",
        "postgresql+psycopg://me@localhost/optuna",
        "monitor.token: token is too short (expected 16 characters or more)",
        "http://127.0.0.1:8053/",
    ],
)
def test_texts_without_secrets_stay_as_they_are(text: str) -> None:
    assert mask_secrets(text) == text


def test_configs_and_commands_are_masked_at_every_depth() -> None:
    config = {
        "storage": {"url": "postgresql://me:c4n4ry@h/d"},
        "notify": {"mine": {"_target_": "my.Notifier", "room": "c4n4ry", "timeout_s": 5.0}},
        "trainer": {"env": {"MY_KEY": "c4n4ry", "OMP_NUM_THREADS": "1"}},
        "study": {"base_config": {"db": {"password": 12345}, "max_tokens": 5}},
        "monitor": {"token": None},
        "command": ["train", "--password", "c4n4ry", "--lr", "1"],
    }
    assert mask_secrets(config) == {
        "storage": {"url": "postgresql://me:***@h/d"},
        "notify": {"mine": {"_target_": "my.Notifier", "room": "***", "timeout_s": 5.0}},
        "trainer": {"env": {"MY_KEY": "***", "OMP_NUM_THREADS": "1"}},
        "study": {"base_config": {"db": {"password": "***"}, "max_tokens": 5}},
        "monitor": {"token": None},
        "command": ["train", "--password", "***", "--lr", "1"],
    }


def test_a_secret_of_the_config_is_masked_wherever_a_message_or_a_traceback_has_it() -> None:
    remember_secrets({"storage": {"url": "postgresql://me:zeb%20ra77@h/d"}})
    remember_secrets({"notify": {"x": {"room": "giraffe-42"}}})
    assert mask_message('no host "zeb ra77" for giraffe-42') == 'no host "***" for ***'
    error = OSError("giraffe-42")
    record = logging.makeLogRecord({"msg": "%s", "args": ("zeb%20ra77",)})
    record.exc_info = (OSError, error, None)
    text = MaskingFormatter().format(record)
    assert "OSError: ***" in text
    assert "zeb" not in text
