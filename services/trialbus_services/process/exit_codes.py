"""Exit codes of the `trialbus` command and of the services.

`guard` defines two more, `guard.NOT_EXECUTABLE` and `guard.NOT_FOUND`, as shells do: the guard is
run as a file and imports nothing of trialbus.
"""

from __future__ import annotations

import signal
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

#: Exit codes of a training after a signal to terminate: negative for death by the signal, 128 and
#: the number where a shell or the trainer handled the signal.
TERMINATED: Final = frozenset(
    {
        -signal.SIGTERM,
        -signal.SIGINT,
        -signal.SIGHUP,
        128 + signal.SIGTERM,
        128 + signal.SIGINT,
    }
)


def get_error_code(error: TrialbusError) -> int:
    """Return the exit code of a command that an error ended."""
    if isinstance(error, LogInUseError | HubRefusedError):
        return ALREADY_SERVED
    return WRONG_INPUT if isinstance(error, SpecError | LogError) else FAILED


def get_study_code(finished: StudyFinished) -> int:
    """Return the exit code of a command that followed a study until the study ended."""
    return DONE if finished.reason != "failed" and finished.best_trials else FAILED
