"""Run a worker, which runs trials: the same as `trialbus worker`."""

import sys

try:
    from trialbus_services.cli.main import main
except ImportError as error:
    sys.exit(f"{error}; run ./scripts/setup, then .venv/bin/python scripts/worker.py")

if __name__ == "__main__":
    sys.exit(main(["worker", *sys.argv[1:]]))
