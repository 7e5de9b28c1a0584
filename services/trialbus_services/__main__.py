"""`python -m trialbus_services` is the `trialbus` command."""

from __future__ import annotations

import os
import select
import sys

_INTERRUPTED = 130  # `exit_codes.INTERRUPTED`, whose import can be interrupted, too


def main() -> int:
    """Run the command line and return the exit code.

    Ctrl-C ends the command quietly from the start, and so does the end of a reader of the output,
    as of `| head`.
    """
    try:
        return _run()
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        if not _is_output_closed():
            raise
        return 0  # the reader has what it wanted
    finally:
        if _is_output_closed():
            # Python writes the rest of the output at its end, and would print an error.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _is_output_closed() -> bool:
    """Return whether standard output is a pipe that nobody reads any more."""
    try:
        number = sys.stdout.fileno()
    except (AttributeError, OSError, ValueError):  # no output, or none with a file
        return False
    poll = select.poll()
    poll.register(number, 0)
    return any(state & select.POLLERR for _, state in poll.poll(0))


def _run() -> int:
    """Run the command line, or print which extra to install.

    A trainer's environment may hold the bus alone.
    """
    from trialbus_services.process import exit_codes

    try:
        from trialbus_services.cli import main as cli
    except ModuleNotFoundError as error:
        print(  # noqa: T201
            f"error: {error.name!r} is not installed, which the services of trialbus need; "
            'install them with: pip install "trialbus[services]"',
            file=sys.stderr,
        )
        return exit_codes.FAILED
    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
