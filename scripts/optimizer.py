"""Run the Optuna service: the same as `trialbus optimizer`."""

import sys

try:
    from trialbus_services.cli.main import main
except ImportError as error:
    sys.exit(f"{error}; run ./scripts/setup, then .venv/bin/python scripts/optimizer.py")

if __name__ == "__main__":
    sys.exit(main(["optimizer", *sys.argv[1:]]))
