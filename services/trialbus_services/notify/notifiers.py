"""The notifiers that come with trialbus: webhook, Slack, desktop."""

from __future__ import annotations

import html
import logging
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Mapping
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

import msgspec

from trialbus_services.notify.notice import Notice

logger = logging.getLogger(__name__)

_NOTIFY_SEND = "notify-send"
_DESKTOP_S = 10.0


class Webhook:
    """Posts a notice as JSON; a response other than 2xx, and a time-out, raise.

    Args:
        url: Address. Never logged whole: the path may be a secret.
        timeout_s: Seconds to wait for the connection, and for each part of the answer.
        headers: Further headers, for example `{"Authorization": "Bearer ..."}`.

    Raises:
        ValueError: The URL or the time-out cannot be used.

    Example:
        >>> Webhook("http://127.0.0.1:8080/hook")(notice)  # doctest: +SKIP
    """

    def __init__(
        self, url: str, timeout_s: float = 10.0, headers: Mapping[str, str] | None = None
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("url is not http://<host>... or https://<host>...")
        if timeout_s <= 0:
            raise ValueError(f"timeout_s {timeout_s:g} is not above zero")
        self._url = url
        self._host = parts.hostname
        self._timeout_s = timeout_s
        self._headers = {"Content-Type": "application/json", **(headers or {})}
        self._opener = _create_opener()

    def __call__(self, notice: Notice) -> None:
        """Post a notice.

        Raises:
            ConnectionError: The server did not accept the notice.
        """
        request = urllib.request.Request(  # noqa: S310 - the scheme was checked
            self._url, msgspec.json.encode(self.make_payload(notice)), self._headers, method="POST"
        )
        try:
            with self._opener.open(request, timeout=self._timeout_s):
                pass
        except urllib.error.HTTPError as error:
            error.close()
            raise ConnectionError(f"{self._host} answered {error.code} {error.reason}") from None
        except (OSError, HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            raise ConnectionError(f"{self._host} cannot be reached: {reason}") from None

    def make_payload(self, notice: Notice) -> dict[str, Any]:
        """Return the body of the request: the notice's fields, title and text."""
        return {**msgspec.structs.asdict(notice), "title": notice.title, "text": notice.text}


class Slack(Webhook):
    """Posts a notice to an incoming webhook of Slack, or of a compatible service (Mattermost).

    Source:
        https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks
    """

    def make_payload(self, notice: Notice) -> dict[str, Any]:
        """Return a message with the title in bold; names cannot become mentions or links."""
        title, text = (html.escape(part, quote=False) for part in (notice.title, notice.text))
        return {"text": f"*{title}*\n{text}"}


class Desktop:
    """Shows a notice on the desktop by `notify-send`; logs a warning without that program."""

    def __call__(self, notice: Notice) -> None:
        """Show a notice.

        Raises:
            subprocess.SubprocessError: The program failed, or took more than ten seconds.
        """
        program = shutil.which(_NOTIFY_SEND)
        if program is None:
            logger.warning("%s is not installed; not shown: %s", _NOTIFY_SEND, notice.title)
            return
        subprocess.run(
            [program, "--app-name=trialbus", "--", notice.title, html.escape(notice.text)],
            check=True,
            timeout=_DESKTOP_S,
            stdin=subprocess.DEVNULL,
        )


def _create_opener() -> urllib.request.OpenerDirector:
    """Return urllib's default opener, except that a redirect is an error.

    A redirected POST would arrive as a GET without its body, and seem to be delivered.
    """
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener
