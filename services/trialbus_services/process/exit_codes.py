"""Exit codes of the `trialbus` command and of the services.

The guard of a training has two more, `guard.NOT_EXECUTABLE` and `guard.NOT_FOUND`, which are those
of a shell: it is run as a file and imports nothing.
"""

from __future__ import annotations

import signal
from typing import Final

from trialbus.errors import HubRefusedError, LogError, LogInUseError, SpecError, TrialbusError
from trialbus.messages.events import StudyFinished

#: All is done.
DONE: Final = 0
#: The study has no result, or something failed that may go better another time.
FAILED: Final = 1
#: The config, the command line or a file is wrong: it would fail again in the same way.
WRONG_INPUT: Final = 2
#: Another hub or optimizer serves already, so that this one is not needed.
ALREADY_SERVED: Final = 3
#: Ctrl-C, as shells have it: 128 and the number of SIGINT.
INTERRUPTED: Final = 130

#: How a training ends that was told to end: by the signal, or with what shells and trainers make of
#: one that they handle. A negative number is that of a signal.
TOLD_TO_END: Final = frozenset(
    {
        -signal.SIGTERM,
        -signal.SIGINT,
        -signal.SIGHUP,
        128 + signal.SIGTERM,
        128 + signal.SIGINT,
    }
)


def for_error(error: TrialbusError) -> int:
    """Return the exit code of a command that an error ended."""
    if isinstance(error, LogInUseError | HubRefusedError):
        return ALREADY_SERVED
    return WRONG_INPUT if isinstance(error, SpecError | LogError) else FAILED


def for_study(finished: StudyFinished) -> int:
    """Return the exit code of a command that followed a study until the study ended."""
    return DONE if finished.reason != "failed" and finished.best_trials else FAILED
