"""`./scripts/simulate`: hub and clients in one thread, on a simulated clock, network and disk."""

from __future__ import annotations

import argparse
import json
import logging
import random
import sys
from dataclasses import asdict

from simulation.run import run


def main() -> int:
    parser = argparse.ArgumentParser(prog="./scripts/simulate", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="about how long (default: 60)")
    parser.add_argument(
        "--seed", type=int, help="seed of the first simulation; the others count up from it"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    arguments = parser.parse_args()
    seed = random.randrange(1 << 31) if arguments.seed is None else arguments.seed
    logging.disable()  # every simulation has its own complaints
    outcome = run(seed, arguments.seconds)
    for violation in outcome.violations:
        print(violation)
    print(
        f"seed {seed}: {outcome.faults} faults in {outcome.simulations} simulations,"
        f" {outcome.faults_per_s:g} a second, {len(outcome.violations)} violations"
    )
    if arguments.json:
        print(json.dumps(asdict(outcome)))
    return 1 if outcome.violations else 0


if __name__ == "__main__":
    sys.exit(main())
