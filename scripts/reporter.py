"""Run the reporting service: the same as `trialbus reporter`."""

import sys

try:
    from trialbus_services.cli.main import main
except ImportError as error:
    sys.exit(f"{error}; run ./scripts/setup, then .venv/bin/python scripts/reporter.py")

if __name__ == "__main__":
    sys.exit(main(["reporter", *sys.argv[1:]]))
