"""`./scripts/bench {bus,optimizer,study,sweep,trainer} [--quick] [--json]`: measure a part."""

from __future__ import annotations

import argparse
import json
import sys

from rich.console import Console
from rich.table import Table

from benchmarks import bus, optimizer, study, sweep, trainer

_BENCHMARKS = {
    "bus": bus,
    "optimizer": optimizer,
    "study": study,
    "sweep": sweep,
    "trainer": trainer,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="./scripts/bench", description=__doc__)
    parser.add_argument("benchmark", choices=sorted(_BENCHMARKS))
    parser.add_argument("--quick", action="store_true", help="under a minute, less exact")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    options = parser.parse_args()
    benchmark = _BENCHMARKS[options.benchmark]
    console = Console()
    with console.status("measuring; leave the machine alone"):
        figures = benchmark.run(benchmark.QUICK if options.quick else benchmark.FULL)
    table = Table("figure", "value", box=None)
    table.columns[1].justify = "right"
    for name, value in figures.items():
        if name != "skipped":
            table.add_row(
                name, f"skipped: {figures['skipped'][name]}" if value is None else f"{value:,.2f}"
            )
    console.print(table)
    if options.json:
        print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
