"""`python -m trialbus_services` is the `trialbus` command."""

from __future__ import annotations

import sys

_INTERRUPTED = 130  # `exit_codes.INTERRUPTED`, whose import can be interrupted, too


def main() -> int:
    """Run the command line and return the exit code; Ctrl-C ends it quietly from the start."""
    try:
        return _run()
    except KeyboardInterrupt:
        return _INTERRUPTED


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
