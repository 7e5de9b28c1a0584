"""Exit codes of the `trialbus` command and of the services.

`guard` defines two more, `guard.NOT_EXECUTABLE` and `guard.NOT_FOUND`, as shells do: the guard is
run as a file and imports nothing of trialbus.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from trialbus.errors import HubRefusedError, LogError, LogInUseError, SpecError, TrialbusError
from trialbus.messages.events import StudyFinished

#: The command did its work.
DONE: Final = 0
#: The study has no result, or the command failed and may succeed another time.
FAILED: Final = 1
#: The config, the command line or a file is wrong: the command would fail again.
WRONG_INPUT: Final = 2
#: Another hub or optimizer serves already.
ALREADY_SERVED: Final = 3
#: Ctrl-C, as in shells: 128 and the number of SIGINT.
INTERRUPTED: Final = 130

# Where a shell started the program: 128 and the number of the signal. Not SIGHUP, whose 129 other
# programs use.
_SHELL_CODES: Final = {
    128 + number: number
    for number in (
        signal.SIGINT,
        signal.SIGILL,
        signal.SIGABRT,
        signal.SIGBUS,
        signal.SIGFPE,
        signal.SIGKILL,
        signal.SIGSEGV,
        signal.SIGTERM,
    )
}


def find_signal(code: int) -> int | None:
    """Return the number of the signal that ended a program with an exit code; None without one.

    Args:
        code: Exit code; negative for death by the signal, 128 and the number where a shell or the
            program handled the signal.
    """
    return -code if code < 0 else _SHELL_CODES.get(code)


def describe_code(code: int) -> str:
    """Describe the end of a program by its exit code, as a verb.

    Args:
        code: Exit code; negative for death by the signal.

    Example:
        >>> describe_code(2), describe_code(-9), describe_code(137)
        ('exited with code 2', 'was killed by SIGKILL', 'exited with code 137, as after SIGKILL')
    """
    number = find_signal(code)
    name = "" if number is None else _name_signal(number)
    if code < 0:
        return f"was killed by {name}"
    return f"exited with code {code}{name and f', as after {name}'}"


def _name_signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal has no name
        return f"signal {number}"


class ServiceError(TrialbusError):
    """A service that this process had started ended, and cannot go on.

    Args:
        name: Name of the service.
        code: Exit code of the service.
        lines: Lines of the error that the service printed.
        log: File with the output of the service.
    """

    def __init__(self, name: str, code: int, lines: Sequence[str], log: Path) -> None:
        text = "\n  ".join([f"the {name} {describe_code(code)}: {lines[0]}", *lines[1:]])
        super().__init__(f"{text}\n  the whole output: {log}")
        self.code = code
        self.lines = list(lines)


def get_error_code(error: TrialbusError) -> int:
    """Return the exit code of a command that an error ended."""
    if isinstance(error, ServiceError):
        return error.code if error.code == WRONG_INPUT else FAILED
    if isinstance(error, LogInUseError | HubRefusedError):
        return ALREADY_SERVED
    return WRONG_INPUT if isinstance(error, SpecError | LogError) else FAILED


def get_study_code(finished: StudyFinished) -> int:
    """Return the exit code of a command that followed a study until the study ended."""
    return DONE if finished.reason != "failed" and finished.best_trials else FAILED
