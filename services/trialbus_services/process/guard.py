"""Guard: runs a training, and ends the training with all its processes when the worker is gone.

`python -I -S guard.py GRACE_S COMMAND...` with a pipe or socket to the worker as standard input.
Its end means that the worker died, or wants the training to end: SIGTERM to the training's process
group and, GRACE_S seconds later, SIGKILL. When the training ends by itself, whatever is left of
its group is killed. The guard then ends as the training did: with its exit code, or by its signal.

Over a socket the guard tells the worker the number of the training's process group, and `DONE` when
nothing is left of it: should the guard be killed, the worker can end the group in its place.

Every trial waits for this program to start, so it imports little.
"""

import os
import select
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
else:
    # `signal` turns these numbers into enums, which takes almost as long as Python's own start.
    import _signal as signal

NOT_EXECUTABLE = 126
NOT_FOUND = 127
DONE = b"."

_LINE = 0
_PR_SET_PDEATHSIG = 1


def main(grace_s: float, command: list[str]) -> int:
    """Run `command` under guard and return the exit code to end with; negative for a signal."""
    signals = listen()
    try:
        training = _start(command)
    except FileNotFoundError:
        return _refuse(NOT_FOUND, f"there is no {command[0]!r}")
    except OSError as error:
        return _refuse(NOT_EXECUTABLE, f"{command[0]!r} cannot be run: {error.strerror}")
    return watch_over(training, signals, grace_s)


def watch_over(training: int, signals: int, grace_s: float) -> int:
    """Wait for the end of a child's process group; return the exit code, negative for a signal.

    `signals` is what `listen` returned before the child was forked.
    """
    tell(b"%d" % training)
    status = _watch(training, signals, grace_s)
    # The number is free if nothing is left of the group, but numbers are given out in turn: no
    # other group can have it yet.
    kill_group(training, signal.SIGKILL)
    tell(DONE)
    return os.waitstatus_to_exitcode(status)


def kill_group(group: int, number: int) -> None:
    """Send a signal to a process group, unless the group has ended."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):  # macOS says the latter of a group of zombies
        return


def listen() -> int:
    """Return a file descriptor to read from now on the numbers of the signals that come."""
    numbers, arriving = os.pipe()
    os.set_blocking(arriving, False)
    signal.set_wakeup_fd(arriving)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _note)
    return numbers


def _note(_number: int, _frame: object) -> None:
    """Do nothing: only with a handler is a signal's number written to the wake-up descriptor."""


def _watch(training: int, signals: int, grace_s: float) -> int:
    """Wait for a training's end, enforce the end when it is due, and return the exit status."""
    watched = [_LINE, signals]
    stopping = False
    deadline: float | None = None
    while True:
        ended, status = os.waitpid(training, os.WNOHANG)
        if ended:
            return status
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        for source in select.select(watched, (), (), left)[0]:
            read = _read(source)
            if not read:
                watched.remove(source)
            if not read or (source == signals and read.strip(bytes([signal.SIGCHLD]))):
                stopping = True
        if stopping and deadline is None:
            deadline = time.monotonic() + grace_s
            kill_group(training, signal.SIGTERM)
        elif deadline is not None and time.monotonic() >= deadline:
            kill_group(training, signal.SIGKILL)
            deadline = time.monotonic() + grace_s + 1


def _start(command: list[str]) -> int:
    """Start the training and return the process id, which is the id of the process group as well.

    Raises:
        OSError: The command cannot be run.
    """
    guard = os.getpid()
    failed_read, failed_write = os.pipe()  # closed by a successful exec
    training = os.fork()
    if training == 0:
        try:
            _become(command, guard)
        except OSError as error:
            os.write(failed_write, b"%d" % (error.errno or 0))
        finally:
            os._exit(NOT_EXECUTABLE)
    os.close(failed_write)
    failed = os.read(failed_read, 16)
    os.close(failed_read)
    if failed:
        os.waitpid(training, 0)
        raise OSError(int(failed), os.strerror(int(failed)))
    return training


def _become(command: list[str], guard: int) -> None:
    """Turn this forked process into the training."""
    separate(guard)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them; a program expects them
        signal.signal(number, signal.SIG_DFL)
    os.execvp(command[0], command)  # noqa: S606 - the command of the worker's own configuration


def separate(guard: int) -> None:
    """Make this forked process the leader of a new process group that dies with the guard."""
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    if sys.platform == "linux":
        _die_with(guard)


def _die_with(guard: int) -> None:
    """Make the kernel kill this process when the guard is killed."""
    try:
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    except (ImportError, OSError, AttributeError):
        return  # a Python without ctypes: the worker still ends the group
    if os.getppid() != guard:  # it was killed before the kernel had been told
        os.kill(os.getpid(), signal.SIGKILL)


def _read(source: int) -> bytes:
    try:
        return os.read(source, 512)
    except OSError:  # the worker died with something of ours unread
        return b""


def tell(message: bytes) -> None:
    """Write a message to the worker."""
    try:
        os.write(_LINE, message)
    except OSError:  # a pipe, or the worker is gone
        return


def _refuse(code: int, reason: str) -> int:
    tell(DONE)
    sys.stderr.write(f"trialbus: trainer.command: {reason}\n")
    return code


def _end_as(code: int) -> None:
    if code < 0:
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the training has left its own
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code)


if __name__ == "__main__":
    _end_as(main(float(sys.argv[1]), sys.argv[2:]))
