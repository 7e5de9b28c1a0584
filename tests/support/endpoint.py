"""An HTTP endpoint on loopback with the answers that a test chooses."""

from __future__ import annotations

import json
import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, TypeAlias

Answer: TypeAlias = int | Literal["hang", "close"]


class Endpoint:
    """Received posts, and the answers to the next posts: in turn, and 200 after the last."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.seen: list[dict[str, Any]] = []  #: bodies that were answered with 200
        self.headers: list[dict[str, str]] = []
        self.n_posts = 0
        self.released = threading.Event()
        self.url = ""


@contextmanager
def serve_endpoint(*answers: Answer) -> Generator[Endpoint]:
    """Serve an endpoint inside the block."""
    endpoint = Endpoint(*answers)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            endpoint.n_posts += 1
            answer = endpoint.answers.pop(0) if endpoint.answers else 200
            if answer == "hang":
                endpoint.released.wait(30)
            if isinstance(answer, str):
                self.close_connection = True
                return
            if answer == 200:
                endpoint.seen.append(json.loads(body))
                endpoint.headers.append(dict(self.headers))
            self.send_response(answer)
            if answer in (302, 307):
                self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_GET(self) -> None:
            """Answer a redirected post."""
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_request(self, code: object = "-", size: object = "-") -> None:
            """Do not log the request."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    endpoint.url = f"http://127.0.0.1:{server.server_port}/hook/secret"
    try:
        yield endpoint
    finally:
        endpoint.released.set()
        server.shutdown()
        thread.join()
        server.server_close()
