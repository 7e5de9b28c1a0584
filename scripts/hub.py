"""Run the hub of the bus: the same as `trialbus hub`."""

import sys

try:
    from trialbus_services.cli.main import main
except ImportError as error:
    sys.exit(f"{error}; run ./scripts/setup, then .venv/bin/python scripts/hub.py")

if __name__ == "__main__":
    sys.exit(main(["hub", *sys.argv[1:]]))
