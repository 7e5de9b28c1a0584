"""The live page as a process, and requests to it."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from support.processes import Bus, Managed
from support.until import until

_STARTED = re.compile(r"http://[^/]+:(\d+)/")


class Page:
    """A monitor on a port of the system's choice; the same one when it is started again."""

    def __init__(self, bus: Bus, *overrides: str) -> None:
        self.process: Managed = bus.service("monitor", "monitor.port=0", *overrides)
        self.port = self._wait()
        self.url = f"http://127.0.0.1:{self.port}/"
        at = self.process.command.index("monitor.port=0")
        self.process.command[at] = f"monitor.port={self.port}"

    def restart(self) -> None:
        self.process.restart()
        until(lambda: len(_STARTED.findall(self.process.printed())) > 1, 30, "the page")

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> tuple[int, str]:
        status, text, _ = self._ask("GET", path, None, headers)
        return status, text

    def get_headers(self, path: str, headers: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the headers of the response to a GET, with names in lower case."""
        _, _, response_headers = self._ask("GET", path, None, headers)
        return response_headers

    def send_action(self, body: Any, headers: Mapping[str, str] | None = None) -> tuple[int, str]:
        """Send an action as the page sends it."""
        all_headers = {"X-Trialbus-Token": self.token()} | dict(headers or {})
        status, text, _ = self._ask("POST", "/action", json.dumps(body), all_headers)
        return status, text

    def token(self) -> str:
        with self.stream() as messages:
            return str(next(data for event, data in messages if event == "hello")["token"])

    @contextmanager
    def stream(self, query: str = "") -> Generator[Iterator[tuple[str, Any]]]:
        """Yield the messages of the page's stream: event and data."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        connection.request("GET", f"/stream{query}")
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
        self, method: str, path: str, body: str | None, headers: Mapping[str, str] | None
    ) -> tuple[int, str, dict[str, str]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            response_headers = {name.lower(): value for name, value in response.getheaders()}
            return response.status, response.read().decode(), response_headers
        finally:
            connection.close()

    def _wait(self) -> int:
        def port() -> int:
            assert self.process.running, self.process.printed()
            url = _STARTED.search(self.process.printed())
            return int(url[1]) if url else 0

        return until(port, 30, "the page")
