"""The live page as a process, and HTTP requests."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from support.processes import Bus, Managed
from support.until import until

_STARTED = re.compile(r"http://[^/]+:(\d+)/(\?token=\S+)?")


class Page:
    """A monitor on a port of the system's choice, which a restart keeps."""

    def __init__(self, bus: Bus, *overrides: str) -> None:
        self.process: Managed = bus.service("monitor", "monitor.port=0", *overrides)
        self.port = int(self._wait(1)[1])
        self.url = f"http://127.0.0.1:{self.port}/"
        at = self.process.command.index("monitor.port=0")
        self.process.command[at] = f"monitor.port={self.port}"

    @property
    def url_with_token(self) -> str:
        """The URL that the monitor printed at its last start."""
        return self._wait(1)[0]

    def restart(self) -> None:
        n_starts = len(_STARTED.findall(self.process.printed()))
        self.process.restart()
        self._wait(n_starts + 1)

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> tuple[int, str]:
        status, text, _ = self._ask("GET", path, None, headers)
        return status, text

    def get_headers(self, path: str, headers: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the headers of the response to a GET, with names in lower case."""
        _, _, response_headers = self._ask("GET", path, None, headers)
        return response_headers

    def send_action(self, body: Any, headers: Mapping[str, str] | None = None) -> tuple[int, str]:
        """Send an action like a page opened by the printed URL; bytes as they are."""
        all_headers = {"Cookie": self.log_in()} | dict(headers or {})
        data = body if isinstance(body, bytes) else json.dumps(body)
        status, text, _ = self._ask("POST", "/action", data, all_headers)
        return status, text

    def log_in(self) -> str:
        """Open the printed URL and return the cookie that the monitor sets."""
        headers = self.get_headers(self.url_with_token.removeprefix(self.url.rstrip("/")))
        return headers["set-cookie"].partition(";")[0]

    @contextmanager
    def stream(
        self, query: str = "", headers: Mapping[str, str] | None = None
    ) -> Generator[Iterator[tuple[str, Any]]]:
        """Yield the messages of the page's stream: event and data."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        connection.request("GET", f"/stream{query}", headers=dict(headers or {}))
        response = connection.getresponse()
        assert response.status == 200

        def messages() -> Iterator[tuple[str, Any]]:
            event = ""
            while line := response.readline().decode().strip("\r\n") or " ":
                name, _, value = line.partition(": ")
                if name == "event":
                    event = value
                elif name == "data":
                    yield event, json.loads(value)

        try:
            yield messages()
        finally:
            connection.close()

    def _ask(
        self, method: str, path: str, body: str | bytes | None, headers: Mapping[str, str] | None
    ) -> tuple[int, str, dict[str, str]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            response_headers = {name.lower(): value for name, value in response.getheaders()}
            return response.status, response.read().decode(), response_headers
        finally:
            connection.close()

    def _wait(self, n_starts: int) -> re.Match[str]:
        """Wait for a number of starts and return the match of the last URL printed."""

        def find_url() -> re.Match[str] | None:
            assert self.process.running, self.process.printed()
            urls = list(_STARTED.finditer(self.process.printed()))
            return urls[-1] if len(urls) >= n_starts else None

        url = until(find_url, 30, "the page")
        assert url is not None
        return url
