"""Secrets of a config: the rules that decide which values are secret, and the masking of secrets.

Every text that shows, stores, publishes or logs a config, an override, a command line or a URL goes
through `mask_secrets`; errors and log lines go through `mask_message`.
"""

from __future__ import annotations

import logging
import re
from typing import Any
from urllib.parse import unquote

from trialbus.study.validation import is_mapping

MASK = "***"

#: Names of secrets in any config, for example `wandb.api_key`.
_NAME = re.compile(
    r"(?i)passw|passphrase|secret|credential|authorization|webhook"
    r"|(?:api|access|private|account)_?key(?![a-z])|token(?![a-z])"
)
#: Names of environment variables, for example `WANDB_API_KEY`, but not `TOKENIZERS_PARALLELISM`.
_VARIABLE = re.compile(r"(?i)(?:^|_)(?:key|pass|pwd|auth|dsn)(?:_|$)")
_IS_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]*")
_REFERENCE = re.compile(r"\$\{[^{}]*\}|\?\?\?|null|")
_REFERENCE_IN_TEXT = re.compile(r"\$\{[^{}]*\}")
#: Characters that stand for the references of a text while its secrets are masked.
_FIRST_PLACEHOLDER = 0xE000
_PLACEHOLDER = re.compile(r"[\ue000-\uf8ff]")
_OVERRIDE = re.compile(r"(?s)([+~]*[A-Za-z_][\w./@-]*)=(.*)")

#: `scheme://user:password@`, where the value is a URL, and within a text.
_URL = re.compile(r"(?s)(['\"]?[\w+.-]+://[^:/?#@]*):(.*)@")
_URL_IN_TEXT = re.compile(r"([\w+.-]+://[^:/?#@\s'\"]*):([^\s'\"]*)@")
#: `https://token@host`.
_URL_USER = re.compile(r"(https?://)[^:/?#@\s'\"]+@")
_HOOK = re.compile(
    r"(https?://)([^\s/'\"@]*hook[^\s/'\"]*|[^\s/'\"@]+(?=/[^\s'\"]*(?:hook|/bot\d+:)))/[^\s'\",}\]]+"
)
_VALUE = r"('(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\"|[^\s,;&}\]'\"]+)"
#: `key=value`, `{key: value}` and `--key value` within a text.
_ASSIGNMENTS = (
    re.compile(rf"()([A-Za-z_][\w./@-]*)(=){_VALUE}"),
    re.compile(rf"([{{,]\s*['\"]?|['\"])([A-Za-z_][\w./@-]*)(['\"]?\s*:\s*){_VALUE}"),
    re.compile(rf"(--)([A-Za-z][\w-]*)(['\"]?[\s,]+){_VALUE}"),
)
_FLAG = re.compile(r"--?([A-Za-z][\w-]*)")

_MIN_KNOWN = 6  # characters; a shorter secret would be found in ordinary words
_known: set[str] = set()


def is_secret(key: str) -> bool:
    """Tell whether the value of a key is a secret.

    Args:
        key: Dotted path, as in an override: `monitor.token`, `+trainer.env.WANDB_API_KEY`.
    """
    *sections, name = re.split(r"[./@]+", key.lstrip("+~"))
    if sections[:1] == ["notify"]:
        # Addresses, headers and whatever else a notifier of the user takes.
        return name != "_target_"
    is_variable = sections[-1:] == ["env"] or _IS_VARIABLE.fullmatch(name)
    name = name.replace("-", "_")
    return bool(_NAME.search(name) or (is_variable and _VARIABLE.search(name)))


def mask_secrets(data: Any, key: str = "") -> Any:
    """Return plain data with secrets masked.

    Masked are the values of secret keys (see `is_secret`), also in overrides and commands, the
    passwords of URLs, and the paths of webhooks. References such as `${oc.env:NAME}` stay.

    Args:
        data: Plain data: a config, a list of arguments, a URL, or any text.
        key: Dotted path of the data in the config.

    Example:
        >>> mask_secrets({"url": "postgresql://me:hunter2@host/db", "API_KEY": "x"})
        {'url': 'postgresql://me:***@host/db', 'API_KEY': '***'}
        >>> mask_secrets(["notify.slack.url=https://hooks.slack.com/T0/B1"])
        ['notify.slack.url=https://hooks.slack.com/***']
    """
    if is_mapping(data):
        prefix = f"{key}." if key else ""
        return {name: mask_secrets(value, f"{prefix}{name}") for name, value in data.items()}
    if isinstance(data, list | tuple):
        return _mask_list(list(data), key)  # pyright: ignore[reportUnknownArgumentType]
    if isinstance(data, str):
        return _mask_value(data) if is_secret(key) else _mask_text(data, key)
    is_number = isinstance(data, int | float) and not isinstance(data, bool)
    return MASK if is_number and re.search(r"(?i)passw|secret|api_?key", key) else data


def mask_message(text: str) -> str:
    """Return the text of an error or a log line with secrets masked.

    Masked are also the values that `remember_secrets` has seen, wherever they stand.
    """
    for secret in sorted(_known, key=len, reverse=True):
        text = text.replace(secret, MASK)
    return mask_secrets(text)


def remember_secrets(data: Any, key: str = "") -> None:
    """Remember the secrets of a config, to mask them in messages of other libraries, too."""
    if is_mapping(data):
        for name, value in data.items():
            remember_secrets(value, f"{key}.{name}" if key else str(name))
    elif isinstance(data, list | tuple):
        for value in data:  # pyright: ignore[reportUnknownVariableType]
            remember_secrets(value, key)
    elif isinstance(data, str):
        url = _URL.match(data)
        secrets = [url[2], unquote(url[2])] if url else []
        if is_secret(key) and not _REFERENCE.fullmatch(data):
            secrets.append(data)
        _known.update(secret for secret in secrets if len(secret) >= _MIN_KNOWN)


#: `extra` of a log line that has to show a secret.
UNMASKED = {"unmasked": True}


class MaskingFormatter(logging.Formatter):
    """Formatter of log lines and tracebacks without secrets."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the text of a record with secrets masked."""
        text = super().format(record)
        return text if getattr(record, "unmasked", False) else mask_message(text)


def _mask_list(items: list[Any], key: str) -> list[Any]:
    masked: list[Any] = []
    flag = ""
    for item in items:
        is_value = flag and isinstance(item, str) and not item.startswith("-")
        masked.append(_mask_value(item) if is_value else mask_secrets(item, key))
        match = _FLAG.fullmatch(item) if isinstance(item, str) else None
        flag = match[1] if match and is_secret(match[1]) else ""
    return masked


def _mask_value(value: str) -> str:
    """Return the text that stands for a secret: of a URL the host remains."""
    if _REFERENCE.fullmatch(value) or _PLACEHOLDER.fullmatch(value):
        return value
    url = re.match(r"['\"]?(https?://)(?:[^/?#\s]*@)?([^/?#\s'\"]+)", value)
    return f"{url[1]}{url[2]}/{MASK}" if url else MASK


def _mask_text(text: str, key: str) -> str:
    override = _OVERRIDE.fullmatch(text)
    if override is not None:
        target, value = override.groups()
        if is_secret(target) or (target.lstrip("+~") == "notify" and "{" in value):
            return f"{target}={_mask_value(value)}"
        return f"{target}={_mask_text(value, target)}"
    references = _REFERENCE_IN_TEXT.findall(text)
    placeholders = iter(range(_FIRST_PLACEHOLDER, _FIRST_PLACEHOLDER + len(references)))
    text = _REFERENCE_IN_TEXT.sub(lambda _: chr(next(placeholders)), text)
    text = _URL.sub(_mask_password, text) if _URL.match(text) else text
    text = _URL_IN_TEXT.sub(_mask_password, text)
    text = _URL_USER.sub(_mask_user, text)
    text = _HOOK.sub(rf"\1\2/{MASK}", text)
    text = _mask_assignments(text, key)
    for index, reference in enumerate(references):
        text = text.replace(chr(_FIRST_PLACEHOLDER + index), reference)
    return text


def _mask_password(url: re.Match[str]) -> str:
    return url[0] if _PLACEHOLDER.fullmatch(url[2]) else f"{url[1]}:{MASK}@"


def _mask_user(url: re.Match[str]) -> str:
    return url[0] if _PLACEHOLDER.search(url[0]) else f"{url[1]}{MASK}@"


def _mask_assignments(text: str, key: str) -> str:

    def mask_assignment(match: re.Match[str]) -> str:
        before, name, between, value = match.groups()
        # Entries of `trainer.env={...}` are environment variables.
        is_entry = between.strip("'\" ").startswith(":") and key
        if not (is_secret(name) or (is_entry and is_secret(f"{key.lstrip('+~')}.{name}"))):
            quote = value[0] if value[0] in "'\"" else ""
            inner = _mask_text(value[1:-1], key) if quote else value
            return f"{before}{name}{between}{quote}{inner}{quote}"
        return f"{before}{name}{between}{_mask_value(value)}"

    for pattern in _ASSIGNMENTS:
        text = pattern.sub(mask_assignment, text)
    return text
