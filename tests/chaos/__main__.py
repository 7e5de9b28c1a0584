"""Long runs of chaos: `./scripts/chaos --seconds N`, or of another kind."""

from __future__ import annotations

import argparse
import json
import logging
import random
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from chaos import optimizer_chaos, outage, study_chaos
from chaos.bus_chaos import Chaos, Outcome
from chaos.damage import DamagedLogs
from support.processes import Bus

_KILLS_PER_S = 4


def main() -> int:
    parser = argparse.ArgumentParser(prog="./scripts/chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="about how long (default: 60)")
    parser.add_argument(
        "--outage", type=float, metavar="SECONDS", help="instead, leave a training without a hub"
    )
    parser.add_argument(
        "--optimizer", type=int, metavar="KILLS", help="instead, kill the optimizer in one study"
    )
    parser.add_argument(
        "--damage", type=int, metavar="IMAGES", help="instead, damage the files of a log"
    )
    parser.add_argument(
        "--studies", type=int, metavar="STUDIES", help="instead, kill every process of studies"
    )
    parser.add_argument("--kills", type=int, help="of --studies (default: 12 for each)")
    parser.add_argument("--seed", type=int, default=random.randrange(1000))
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}")
    if arguments.studies is not None:
        outcome = study_chaos.run(arguments.studies, arguments.seed, arguments.kills)
        return _print_outcome(outcome, as_json=arguments.json)
    with tempfile.TemporaryDirectory(prefix="trialbus-") as folder:
        if arguments.damage is not None:
            logging.disable()  # every image logs its damage
            counts = DamagedLogs(Path(folder), arguments.seed).run(arguments.damage)
            print(json.dumps(asdict(counts)) if arguments.json else counts)
            return 0 if counts.silent == 0 else 1
        bus = Bus(Path(folder))
        try:
            if arguments.outage is not None:
                outcome = outage.run(bus, arguments.outage)
            elif arguments.optimizer is not None:
                outcome = optimizer_chaos.run(bus, arguments.optimizer, arguments.seed)
            else:
                kills = max(1, int(arguments.seconds * _KILLS_PER_S))
                outcome = Chaos(bus, seed=arguments.seed).run(kills, long_stops=True)
        finally:
            bus.stop()
    return _print_outcome(outcome, as_json=arguments.json)


def _print_outcome(
    outcome: Outcome | outage.Outage | optimizer_chaos.Outcome | study_chaos.Outcome,
    *,
    as_json: bool,
) -> int:
    print(outcome)
    if as_json:
        print(json.dumps(asdict(outcome)))
    return 0 if outcome.is_harmless else 1


if __name__ == "__main__":
    sys.exit(main())
