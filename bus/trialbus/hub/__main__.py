"""`python -m trialbus.hub` runs a hub with only the core dependencies."""

import sys

from trialbus.hub.main import main

if __name__ == "__main__":
    sys.exit(main())
