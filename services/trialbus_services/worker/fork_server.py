"""Fork server: imports a training function once and forks a process for each trial of it.

`python -m trialbus_services.worker.fork_server MODULE:FUNCTION` with a Unix socket to the worker as
standard input. It tells `READY`, or what keeps it from being so, and a newline; then every byte
that comes with two descriptors, a socket and a log, is a trial. Its end means that the worker is
gone.

For each trial it forks a guard (see `guard`), which reads one line of JSON from the trial's socket
and forks the training; `multiprocessing`'s fork server knows neither sessions nor logs nor process
groups that die with their worker. The guard tells over the socket what any guard tells, and after
it the exit code.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from types import ModuleType
from typing import Any

import trialbus
from trialbus.study.user_code import load_function
from trialbus_services.process import exit_codes, guard

READY = b"ready"

_PARALLEL = 1 << 20  # elements; PyTorch divides the work from 2**15 on
_HANGS_S = 10.0  # a machine under load is slow to fork
_LOOK_S = 0.01


def main(target: str) -> int:
    """Serve until the worker is gone; return the exit code. Returns in forked trainings, too."""
    requests = socket.socket(fileno=os.dup(0))
    try:
        function = load_function("trainer.function", target)
        _check()
    except BaseException as error:  # noqa: BLE001 - a module may end in any way
        traceback.print_exc()
        if isinstance(error, trialbus.SpecError):
            problem = error.problem.removeprefix(f"{target!r} ")  # the worker names it itself
        else:
            problem = traceback.format_exception_only(error)[-1]
        reason = " ".join(problem.split())
        requests.sendall(f"{reason}\n".encode())
        return exit_codes.FAILED
    # What is there now is never collected, so that its pages stay shared.
    gc.collect()
    gc.freeze()
    requests.sendall(READY + b"\n")
    if not _serve(requests):
        return exit_codes.DONE
    _train(function)
    return exit_codes.DONE


def _check() -> None:
    """Refuse a module that started threads, CUDA or OpenMP, which do not survive a fork.

    Raises:
        RuntimeError: The module has started threads, CUDA, or OpenMP's threads.
    """
    main_thread = threading.main_thread()
    others = [thread.name for thread in threading.enumerate() if thread is not main_thread]
    if others:
        raise RuntimeError(
            f"importing the module starts threads ({', '.join(others)}), which a fork ends; "
            "start them in the function"
        )
    torch = sys.modules.get("torch")
    if torch is None:
        return
    if torch.cuda.is_initialized():
        raise RuntimeError(
            "importing the module initializes CUDA, which does not survive a fork; "
            "put tensors and models on a device in the function"
        )
    if not _computes_after_fork(torch):
        raise RuntimeError(
            "importing the module computes on several threads, after which PyTorch stands still in "
            "a fork; compute in the function, or set trainer.env.OMP_NUM_THREADS=1"
        )


def _computes_after_fork(torch: ModuleType) -> bool:
    """Compute in a forked process, which hangs once the OpenMP of GCC has started threads."""
    trying = os.fork()
    if trying == 0:
        torch.ones(_PARALLEL).tanh_()
        os._exit(0)
    deadline = time.monotonic() + _HANGS_S
    while time.monotonic() < deadline:
        if os.waitpid(trying, os.WNOHANG)[0]:
            return True
        time.sleep(_LOOK_S)
    os.kill(trying, signal.SIGKILL)
    os.waitpid(trying, 0)
    return False


def _serve(requests: socket.socket) -> bool:
    """Fork for every request. True in a process that is to train, False at the end."""
    while True:
        data, descriptors, _, _ = socket.recv_fds(requests, 1, 2)
        _reap()
        if not data:
            return False
        sys.stdout.flush()
        sys.stderr.flush()
        if os.fork() == 0:
            requests.close()
            return _guard(*descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return


def _guard(line: int, log: int) -> bool:
    """Be the guard of a training. Returns, with True, in the training only."""
    os.setsid()
    os.dup2(line, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(line)
    os.close(log)
    request = b""
    while not request.endswith(b"\n"):
        more = os.read(0, 1 << 16)
        if not more:  # the worker is gone
            os._exit(exit_codes.FAILED)
        request += more
    told = json.loads(request)
    os.environ.update(told["env"])
    signals = guard.listen()
    own = os.getpid()
    training = os.fork()
    if training == 0:
        guard.separate(own)
        _as_at_start(signals)
        return True
    code = guard.watch_over(training, signals, told["grace_s"])
    guard.tell(b"%d" % code)
    os._exit(0)


def _as_at_start(signals: int) -> None:
    """Restore the signal handling that the process had before it was a guard."""
    os.close(signals)
    os.close(signal.set_wakeup_fd(-1))
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _train(function: Callable[[trialbus.Trial], Any]) -> None:
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed()  # as a process of its own begins; else all trials draw the same
    with trialbus.attach() as trial:
        values = function(trial)
        if values is not None:
            trial.complete(values)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
