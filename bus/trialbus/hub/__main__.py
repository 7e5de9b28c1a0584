"""`python -m trialbus.hub` runs a hub with nothing but the core dependencies installed."""

import sys

from trialbus.hub.main import main

if __name__ == "__main__":
    sys.exit(main())
