"""Handover: what the processes of a training leave to the worker that started them.

The rings of all processes of an attempt lie in a folder, a group of rings. From this folder the
worker reads whether the training still publishes, sends what the training had not sent when its
processes ended, and learns that a signal ended the training: the worker knows who sent the signal,
and decides what becomes of the trial.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from dataclasses import dataclass
from pathlib import Path

from trialbus.client.link import Link
from trialbus.client.part_driver import Send
from trialbus.client.private_files import try_lock, unlock
from trialbus.client.ring_directory import (
    GROUP_VARIABLE,
    adopt_rings,
    find_group,
    list_rings,
    locate_group,
    lock_directory,
    remove_group,
)
from trialbus.client.sender import AdoptedRing
from trialbus.client.shared_ring import read_last
from trialbus.protocol import frames

logger = logging.getLogger(__name__)

_SIGNALLED = "signalled"
_SPEAKER = "speaker"
_POLL_S = 0.02
_PID_WIDTH = 20  # characters: a shorter id replaces a longer one
_EXIT_S = 2.0  # a killed process holds its ring until the kernel has ended it


def is_started_by_worker(name: str) -> bool:
    """Tell whether a worker started this process for an attempt.

    Args:
        name: Name of the handover of the attempt.
    """
    return bool(name) and find_group() == name


def note_signal(endpoint: str, name: str) -> bool:
    """Tell the worker of this process that a signal ends the training.

    Args:
        endpoint: Address of the hub.
        name: Name of the handover of the attempt that the process runs.

    Returns:
        False if no worker started this process for the attempt, so that nobody else will publish
        the end of the attempt.
    """
    if not is_started_by_worker(name):
        return False
    try:
        note = locate_group(endpoint, name) / _SIGNALLED
        os.close(os.open(note, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
    except OSError:  # the worker has no folder for this training, or is gone
        return False
    return True


def claim_attempt(endpoint: str, name: str) -> int:
    """Claim that this process speaks for an attempt as long as it lives, unless another one does.

    Args:
        endpoint: Address of the hub.
        name: Name of the handover of the attempt.

    Returns:
        Id of the process that speaks for the attempt: this one, too, where no worker started the
        process or there is no shared memory, so that nobody can tell.
    """
    if not is_started_by_worker(name) or _claim.holder == (name, os.getpid()):
        return os.getpid()
    path = locate_group(endpoint, name) / _SPEAKER
    try:
        with contextlib.suppress(FileExistsError):
            path.touch(mode=0o600, exist_ok=False)
        lock = try_lock(path)
        if lock is None:
            return int(path.read_text() or 0)
        os.write(lock, str(os.getpid()).ljust(_PID_WIDTH).encode())
    except (OSError, ValueError):
        return os.getpid()
    if _claim.lock is not None:
        unlock(_claim.lock)
    _claim.lock, _claim.holder = lock, (name, os.getpid())
    return os.getpid()


@dataclass
class _Claim:
    """The attempt that this process speaks for."""

    lock: int | None = None
    holder: tuple[str, int] = ("", 0)
    """Name of the handover, and id of the process: a forked child does not hold the lock."""


_claim = _Claim()


class Handover:
    """The folder in which the processes of an attempt leave what their worker needs.

    Args:
        link: The worker's link.
        name: Name of the folder, hexadecimal, which no other attempt has.
    """

    def __init__(self, link: Link, name: str) -> None:
        self._link = link
        self._name = name
        self._lock = lock_directory(link.endpoint, name, create=True)
        self._sender: _LeftSender | None = None

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables of the processes; empty where shared memory is not available."""
        return {} if self._lock is None else {GROUP_VARIABLE: self._name}

    @property
    def is_signalled(self) -> bool:
        """Whether a process of the training noted that a signal ends it."""
        return (locate_group(self._link.endpoint, self._name) / _SIGNALLED).exists()

    def read_progress(self) -> dict[str, int]:
        """Return the number of the newest event of each process that publishes now."""
        progress: dict[str, int] = {}
        for path in list_rings(self._link.endpoint, self._name):
            with contextlib.suppress(OSError):  # closed in between
                progress[path.name] = read_last(path)
        return progress

    def send_left(self) -> bool:
        """Begin to send what ended processes left; return whether the hub has all of that now.

        Ask again until the answer is yes: an event that follows would overtake what is left.
        """
        if self._sender is None:
            if not list_rings(self._link.endpoint, self._name):
                return True
            self._sender = _LeftSender(self._link, self._name)
            self._link.attach(self._sender)
        return self._sender.done.is_set()

    @property
    def n_left(self) -> int:
        """Number of events that are left to send."""
        return 0 if self._sender is None else self._sender.n_left

    def close(self) -> None:
        """Remove the folder, unless unsent events are left: another publisher sends those."""
        if self._sender is not None:
            self._link.detach(self._sender)
            self._sender.on_close()
        if self._lock is not None:
            remove_group(self._link.endpoint, self._name)
            unlock(self._lock)
            self._lock = None


class _LeftSender:
    """The part of the worker's link that sends what the processes of a training left."""

    def __init__(self, link: Link, group: str) -> None:
        self._link = link
        self._group = group
        self._rings: list[AdoptedRing] = []
        self._forbidden: set[Path] = set()
        self._gives_up_at: float | None = None
        self._closing = threading.Lock()
        self._is_closed = False
        self.done = threading.Event()

    @property
    def n_left(self) -> int:
        """Number of events that are left to send."""
        return sum(ring.n_left for ring in self._rings)

    def on_welcome(self, welcome: frames.Welcome) -> None:
        """Do nothing: the sender of each ring is a part of the link."""

    def on_frame(self, frame: frames.ToClient) -> None:
        """Ignore every frame: the sender of each ring is a part of the link."""

    def work(self, send: Send, now: float) -> float | None:
        """Adopt the rings of ended processes, and close those that are sent.

        A ring that a process holds is waited for: the process was killed, and is about to end.
        """
        with self._closing:
            if self._is_closed:
                return None
            if self._gives_up_at is None:
                self._gives_up_at = now + _EXIT_S
            self._rings = [ring for ring in self._rings if self._has_unsent(ring)]
            known = {*(ring.path for ring in self._rings), *self._forbidden}
            self._rings += [
                AdoptedRing(self._link, ring, events)
                for ring, events in adopt_rings(self._link.endpoint, self._group, without=known)
            ]
            known |= {ring.path for ring in self._rings}
            is_held = not known.issuperset(list_rings(self._link.endpoint, self._group))
            if self._rings or (is_held and now < self._gives_up_at):
                return now + _POLL_S
        self.done.set()
        return None

    def on_close(self) -> None:
        """Close the rings; the next adopter sends the events that are left."""
        with self._closing:
            self._is_closed = True
            for ring in self._rings:
                ring.close()

    def _has_unsent(self, ring: AdoptedRing) -> bool:
        if ring.is_forbidden:
            logger.warning("the hub takes no events of a training that has ended")
            self._forbidden.add(ring.path)
            ring.close()
            return False
        return ring.attach_next()
