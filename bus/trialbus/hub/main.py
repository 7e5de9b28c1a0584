"""The hub as a process: `python -m trialbus.hub --help`."""

from __future__ import annotations

import argparse
import contextlib
import logging
import resource
import signal
import sys
from types import FrameType

from trialbus.errors import TrialbusError
from trialbus.hub.hub import Hub
from trialbus.protocol.endpoint import resolve
from trialbus.protocol.security import Gatekeeper

logger = logging.getLogger(__name__)

_MAX_FILES = 1 << 20
_MANY_FILES = 4096


def serve(hub: Hub) -> None:
    """Run a hub until SIGTERM or SIGINT, in the main thread."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        hub.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    # A signal that comes just before the hub waits would be noticed only after it.
    signal.set_wakeup_fd(hub.wake_fd, warn_on_full_buffer=False)
    logger.info("serving at %s, log %s (%d events)", hub.endpoint, hub.log.path, hub.log.end)
    hub.run()


def raise_file_limit() -> None:
    """Let this process open as many files as the system allows, before a hub binds its endpoint.

    Every client takes a file. libzmq ends the process by an assertion where it cannot open the file
    of a client on ipc.

    Source:
        libzmq 4.3.5, `ipc_listener_t::accept`.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, _MAX_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
    if soft != resource.RLIM_INFINITY and soft < _MANY_FILES:
        logger.warning(
            "this hub may open %d files, and ends when more clients than that connect; raise the"
            " limit (ulimit -Hn) before you start many",
            soft,
        )


def main() -> int:
    """Run a hub from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m trialbus.hub", description="Run a hub of trialbus."
    )
    parser.add_argument(
        "--endpoint", help="ipc://<path> or tcp://<host>:<port> (default: $TRIALBUS_ENDPOINT)"
    )
    parser.add_argument(
        "--dir", default=".trialbus", help="where the log is kept (default: %(default)s)"
    )
    parser.add_argument(
        "--sync", choices=("full", "normal"), default="full", help="durability of the log"
    )
    parser.add_argument("--keys", help="folder of keys: accept only clients with a listed key")
    parser.add_argument(
        "--insecure", action="store_true", help="allow an endpoint other machines can reach"
    )
    parser.add_argument(
        "--keep-finished",
        type=float,
        metavar="SECONDS",
        help="remove the events of studies that finished so long ago (default: keep them)",
    )
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s hub %(message)s")
    raise_file_limit()
    try:
        hub = Hub(
            resolve(arguments.endpoint),
            arguments.dir,
            sync=arguments.sync,
            gatekeeper=Gatekeeper(arguments.keys) if arguments.keys else None,
            insecure=arguments.insecure,
            keep_finished_s=arguments.keep_finished,
        )
    except TrialbusError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return 1
    try:
        serve(hub)
    except TrialbusError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0
