"""Fork server: imports a training function once, and forks a process for each trial.

`python -m trialbus_services.worker.fork_server MODULE:FUNCTION` with a Unix socket to the worker as
standard input. The server answers `READY` or the reason of a failed import, and a newline. Every
byte that the worker sends then, with the descriptors of a socket and a log, requests a trial. The
server ends when the worker closes the socket or dies.

For each trial the server forks a guard (see `process.guard`), which reads a line of JSON from the
trial's socket and forks the training; the fork server of `multiprocessing` has no sessions, logs or
process groups that die with the worker. The guard sends the messages of `process.guard` over the
trial's socket, and the exit code as the last message.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import pickle
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import trialbus
from trialbus.study.user_code import load_function
from trialbus_services.config.settings import PICKLE_SUFFIX
from trialbus_services.process import exit_codes, guard

READY = b"ready"

#: Environment variable of a module that is imported once, beside the module of the function.
PRELOAD_VARIABLE = "TRIALBUS_PRELOAD"

_N_ELEMENTS = 1 << 20  # PyTorch divides the work from 2**15 elements on
_FORK_TIMEOUT_S = 10.0  # a machine under load is slow to fork
_POLL_S = 0.01


def main(target: str) -> int:
    """Serve until the worker is gone, and return the exit code of the server or of a training.

    Args:
        target: Training function, `module:function`.
    """
    requests = socket.socket(fileno=os.dup(0))
    try:
        function = _load_function(target)
        _check_fork_safety()
    except BaseException as error:  # noqa: BLE001 - a module may end in any way
        traceback.print_exc()
        if isinstance(error, trialbus.SpecError):
            problem = error.problem.removeprefix(f"{target!r} ")  # the worker adds the name
        else:
            problem = traceback.format_exception_only(error)[-1]
        reason = " ".join(problem.split())
        requests.sendall(f"{reason}\n".encode())
        return exit_codes.FAILED
    # Objects of the import are never collected, so that their pages of memory stay shared.
    gc.collect()
    gc.freeze()
    requests.sendall(READY + b"\n")
    is_training = _serve(requests)
    if is_training:
        _train(function)
    return exit_codes.DONE


def _load_function(target: str) -> Callable[[Any], Any]:
    """Return the function that a config names, or that a file holds which cloudpickle wrote.

    Raises:
        SpecError: There is no such function.
    """
    if (module := os.environ.get(PRELOAD_VARIABLE)) is not None:
        importlib.import_module(module)
    if not target.endswith(PICKLE_SUFFIX):
        return load_function("trainer.function", target)
    try:
        function: Callable[[Any], Any] = pickle.loads(Path(target).read_bytes())  # noqa: S301
    except Exception as error:
        raise trialbus.SpecError(
            "trainer.function", f"cannot be loaded: {type(error).__name__}: {error}"
        ) from error
    return function


def _check_fork_safety() -> None:
    """Check that importing the module started no threads, CUDA or OpenMP, which a fork breaks.

    Raises:
        RuntimeError: The module has started threads, CUDA or OpenMP.
    """
    main_thread = threading.main_thread()
    threads = [thread.name for thread in threading.enumerate() if thread is not main_thread]
    if threads:
        raise RuntimeError(
            f"importing the module starts threads ({', '.join(threads)}), which a fork ends; "
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
            "importing the module computes on several threads, after which PyTorch hangs in "
            "a fork; compute in the function, or set trainer.env.OMP_NUM_THREADS=1"
        )


def _computes_after_fork(torch: ModuleType) -> bool:
    """Tell whether PyTorch computes in a forked process, and does not hang in GCC's OpenMP."""
    child = os.fork()
    if child == 0:
        torch.ones(_N_ELEMENTS).tanh_()
        os._exit(0)
    deadline = time.monotonic() + _FORK_TIMEOUT_S
    while time.monotonic() < deadline:
        if os.waitpid(child, os.WNOHANG)[0]:
            return True
        time.sleep(_POLL_S)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


def _serve(requests: socket.socket) -> bool:
    """Fork a guard for every request; return True in a training, False at the end of the server."""
    while True:
        data, descriptors, _, _ = socket.recv_fds(requests, 1, 2)
        _reap()
        if not data:
            return False
        sys.stdout.flush()
        sys.stderr.flush()
        if os.fork() == 0:
            requests.close()
            return _run_guard(*descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return


def _run_guard(connection: int, log: int) -> bool:
    """Guard a training in this process and end; return, with True, in the training only."""
    os.setsid()
    os.dup2(connection, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(connection)
    os.close(log)
    request = b""
    while not request.endswith(b"\n"):
        chunk = os.read(0, 1 << 16)
        if not chunk:  # the worker is gone
            os._exit(exit_codes.FAILED)
        request += chunk
    options = json.loads(request)
    os.environ.update(options["env"])
    signals = guard.open_signal_pipe()
    guard_pid = os.getpid()
    training = os.fork()
    if training == 0:
        guard.lead_new_group(guard_pid)
        _restore_signals(signals)
        return True
    code = guard.supervise(training, signals, options["grace_s"])
    guard.send_to_worker(b"%d" % code)
    os._exit(0)


def _restore_signals(signals: int) -> None:
    """Restore the signal handling from before `guard.open_signal_pipe`."""
    os.close(signals)
    os.close(signal.set_wakeup_fd(-1))
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _train(function: Callable[[trialbus.Trial], Any]) -> None:
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed()  # as in a new process; else all trials draw the same numbers
    with trialbus.attach() as trial:
        values = _call(function, trial)
        if values is not None:
            trial.complete(values)


def _call(function: Callable[[Any], Any], trial: trialbus.Trial) -> Any:
    """Call a training function, or an objective function of Optuna, for a trial."""
    if trial.define_by_run is None:
        return function(trial)
    # Imported here: other trainings need no Optuna.
    from trialbus_services.worker.objective import run_objective

    return run_objective(function, trial)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
