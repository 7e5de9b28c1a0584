"""`./scripts/bench {bus,optimizer,trainer} [--quick] [--json]`: measurements side by side."""

from __future__ import annotations

import argparse
import json
import sys

from rich.console import Console
from rich.table import Table

from benchmarks import bus, optimizer, trainer

_BENCHMARKS = {"bus": bus, "optimizer": optimizer, "trainer": trainer}


def main() -> int:
    parser = argparse.ArgumentParser(prog="./scripts/bench", description=__doc__)
    parser.add_argument("what", choices=sorted(_BENCHMARKS))
    parser.add_argument("--quick", action="store_true", help="under a minute, less exact")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    options = parser.parse_args()
    chosen = _BENCHMARKS[options.what]
    console = Console()
    with console.status("measuring; leave the machine alone"):
        found = chosen.run(chosen.QUICK if options.quick else chosen.FULL)
    table = Table("figure", "value", box=None)
    table.columns[1].justify = "right"
    for name, value in found.items():
        if name != "skipped":
            table.add_row(
                name, f"skipped: {found['skipped'][name]}" if value is None else f"{value:,.2f}"
            )
    console.print(table)
    if options.json:
        print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
