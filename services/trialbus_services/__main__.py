"""`python -m trialbus_services` is the `trialbus` command."""

import sys

from trialbus_services.cli import main

if __name__ == "__main__":
    sys.exit(main())
