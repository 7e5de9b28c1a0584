"""An HTTP endpoint on loopback that behaves as a test says."""

from __future__ import annotations

import json
import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, TypeAlias

Answer: TypeAlias = int | Literal["hang", "close"]


class Endpoint:
    """What was posted, and how the next posts are answered: in turn, and 200 after them."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.seen: list[dict[str, Any]] = []  #: bodies that were answered with 200
        self.headers: list[dict[str, str]] = []
        self.n_posts = 0
        self.released = threading.Event()
        self.url = ""


@contextmanager
def endpoint(*answers: Answer) -> Generator[Endpoint]:
    """Serve an endpoint inside the block."""
    made = Endpoint(*answers)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            made.n_posts += 1
            answer = made.answers.pop(0) if made.answers else 200
            if answer == "hang":
                made.released.wait(30)
            if isinstance(answer, str):
                self.close_connection = True
                return
            if answer == 200:
                made.seen.append(json.loads(body))
                made.headers.append(dict(self.headers))
            self.send_response(answer)
            if answer in (302, 307):
                self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_GET(self) -> None:
            """Where a redirected post would arrive."""
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_request(self, code: object = "-", size: object = "-") -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    made.url = f"http://127.0.0.1:{server.server_port}/hook/secret"
    try:
        yield made
    finally:
        made.released.set()
        server.shutdown()
        thread.join()
        server.server_close()
