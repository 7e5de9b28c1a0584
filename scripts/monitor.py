"""Serve the live page: the same as `trialbus monitor`."""

import sys

try:
    from trialbus_services.cli.main import main
except ImportError as error:
    sys.exit(f"{error}; run ./scripts/setup, then .venv/bin/python scripts/monitor.py")

if __name__ == "__main__":
    sys.exit(main(["monitor", *sys.argv[1:]]))
