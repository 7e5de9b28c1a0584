"""Run a study from submission to report: the same as `trialbus study`."""

import sys

try:
    from trialbus_services.cli.main import main
except ImportError as error:
    sys.exit(f"{error}; run ./scripts/setup, then .venv/bin/python scripts/study.py")

if __name__ == "__main__":
    sys.exit(main(["study", *sys.argv[1:]]))
