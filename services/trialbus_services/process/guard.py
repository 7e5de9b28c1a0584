"""Guard: runs a training, and ends all processes of the training when the worker is gone.

`python -I -S guard.py GRACE_S COMMAND...` with a pipe or socket to the worker as standard input.
When the worker dies or closes that input, the guard sends SIGTERM to the training's process group
and, GRACE_S seconds later, SIGKILL. When the training ends by itself, the guard kills the rest of
the group. The guard then ends like the training: with the same exit code, or by the same signal.

Over a socket the guard sends the worker the number of the training's process group, and
`GROUP_ENDED` when the group has ended: if the guard is killed, the worker ends the group instead.

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
    # `signal` turns these numbers into enums, which takes almost as long as the start of Python.
    import _signal as signal

NOT_EXECUTABLE = 126
NOT_FOUND = 127
#: Message to the worker: all processes of the training have ended.
GROUP_ENDED = b"."

_WORKER_FD = 0
_PR_SET_PDEATHSIG = 1


def main(grace_s: float, command: list[str]) -> int:
    """Run a command under guard and return the exit code to end with; negative for a signal."""
    signals = open_signal_pipe()
    try:
        training = _start(command)
    except FileNotFoundError:
        return _report_failed_start(NOT_FOUND, f"there is no {command[0]!r}")
    except OSError as error:
        return _report_failed_start(
            NOT_EXECUTABLE, f"{command[0]!r} cannot be run: {error.strerror}"
        )
    return supervise(training, signals, grace_s)


def supervise(training: int, signals: int, grace_s: float) -> int:
    """Wait for the end of a training's process group and return the exit code of the training.

    Args:
        training: Process id of the training, which leads a process group.
        signals: Pipe of `open_signal_pipe`, opened before the training was forked.
        grace_s: Seconds between SIGTERM and SIGKILL.

    Returns:
        Exit code; negative for the number of a signal.
    """
    send_to_worker(b"%d" % training)
    status = _wait_for_end(training, signals, grace_s)
    # The number is free once the group has ended, but the kernel assigns numbers in turn: no other
    # group can have the number yet.
    kill_group(training, signal.SIGKILL)
    send_to_worker(GROUP_ENDED)
    return os.waitstatus_to_exitcode(status)


def kill_group(group: int, number: int) -> None:
    """Send a signal to a process group, unless the group has ended."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):  # macOS: PermissionError for a group of zombies
        return


def open_signal_pipe() -> int:
    """Open a pipe that receives the numbers of incoming signals, and return the reading end."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _handle_signal)
    return reader


def _handle_signal(_number: int, _frame: object) -> None:
    """Handle a signal: only signals with a handler are written to the pipe."""


def _wait_for_end(training: int, signals: int, grace_s: float) -> int:
    """Wait until a training has ended, kill the training if necessary, and return the status."""
    sources = [_WORKER_FD, signals]
    is_stopping = False
    deadline: float | None = None
    while True:
        ended, status = os.waitpid(training, os.WNOHANG)
        if ended:
            return status
        timeout_s = None if deadline is None else max(0.0, deadline - time.monotonic())
        for source in select.select(sources, (), (), timeout_s)[0]:
            data = _read(source)
            if not data:
                sources.remove(source)
            if not data or (source == signals and data.strip(bytes([signal.SIGCHLD]))):
                is_stopping = True
        if is_stopping and deadline is None:
            deadline = time.monotonic() + grace_s
            kill_group(training, signal.SIGTERM)
        elif deadline is not None and time.monotonic() >= deadline:
            kill_group(training, signal.SIGKILL)
            deadline = time.monotonic() + grace_s + 1


def _start(command: list[str]) -> int:
    """Start the training in a new process group and return the id of process and group.

    Raises:
        OSError: The command cannot be run.
    """
    guard = os.getpid()
    error_reader, error_writer = os.pipe()  # closed by a successful exec
    training = os.fork()
    if training == 0:
        try:
            _execute(command, guard)
        except OSError as error:
            os.write(error_writer, b"%d" % (error.errno or 0))
        finally:
            os._exit(NOT_EXECUTABLE)
    os.close(error_writer)
    error_number = os.read(error_reader, 16)
    os.close(error_reader)
    if error_number:
        os.waitpid(training, 0)
        raise OSError(int(error_number), os.strerror(int(error_number)))
    return training


def _execute(command: list[str], guard: int) -> None:
    """Replace this forked process by the training."""
    lead_new_group(guard)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them; a program expects them
        signal.signal(number, signal.SIG_DFL)
    os.execvp(command[0], command)  # noqa: S606 - the command of the worker's own configuration


def lead_new_group(guard: int) -> None:
    """Make this forked process the leader of a new process group that dies with the guard.

    Args:
        guard: Process id of the guard, the parent of this process.
    """
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    if sys.platform == "linux":
        _die_with_parent(guard)


def _die_with_parent(guard: int) -> None:
    """Make the kernel kill this process when the guard is killed."""
    try:
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    except (ImportError, OSError, AttributeError):
        return  # a Python without ctypes: the worker still ends the group
    if os.getppid() != guard:  # killed before the call of prctl
        os.kill(os.getpid(), signal.SIGKILL)


def _read(source: int) -> bytes:
    try:
        return os.read(source, 512)
    except OSError:  # the worker died before it had read every message
        return b""


def send_to_worker(message: bytes) -> None:
    """Send a message to the worker, unless the worker is gone or connected by a pipe."""
    try:
        os.write(_WORKER_FD, message)
    except OSError:
        return


def _report_failed_start(code: int, reason: str) -> int:
    send_to_worker(GROUP_ENDED)
    sys.stderr.write(f"trialbus: trainer.command: {reason}\n")
    return code


def _end_like_training(code: int) -> None:
    if code < 0:
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the training has dumped its own core
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code)


if __name__ == "__main__":
    _end_like_training(main(float(sys.argv[1]), sys.argv[2:]))
