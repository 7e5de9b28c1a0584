"""A mail server on loopback that keeps what it receives."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import cast


class MailServer(socketserver.ThreadingTCPServer):
    """As much of a mail server as a sender needs."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        self.port: int = self.server_address[1]
        self.lines: list[str] = []  #: lines that were received, commands included


class _Connection(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        server = cast(MailServer, self.server)
        self.wfile.write(b"220 here\r\n")
        for line in self.rfile:
            server.lines.append(line.decode().strip())
            if line.upper() == b"DATA\r\n":
                self.wfile.write(b"354 go on\r\n")
            elif line == b".\r\n" or line[:4].upper() in (b"EHLO", b"MAIL", b"RCPT"):
                self.wfile.write(b"250 ok\r\n")
            elif line.upper() == b"QUIT\r\n":
                self.wfile.write(b"221 bye\r\n")


@contextmanager
def serve_mail() -> Generator[MailServer]:
    """Serve a mail server inside the block."""
    with MailServer() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
