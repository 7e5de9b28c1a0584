"""`trialbus log check`: report damage of a bus's log, and repair the log."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from trialbus.hub.log_check import LogReport, check_log
from trialbus.hub.log_repair import repair_log
from trialbus_services.process import exit_codes

_SHOWN = 20  # damaged ranges


def log(arguments: list[str]) -> int:
    """Check or repair the log in a folder and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="trialbus log", description="Read a whole log and say what is damaged in it."
    )
    parser.add_argument("action", choices=["check"])
    parser.add_argument(
        "dir", nargs="?", default=".trialbus", help="folder of the log, bus.dir (.trialbus)"
    )
    parser.add_argument(
        "--repair",
        action="store_true",
        help="write a new log from the intact events; the hub must be stopped",
    )
    parser.add_argument("--json", action="store_true", help="as one JSON object")
    options = parser.parse_intermixed_args(arguments)
    report = repair_log(options.dir) if options.repair else check_log(options.dir)
    if options.json:
        print(json.dumps(asdict(report), default=str))
    else:
        _print_report(report, is_repair=options.repair)
    return exit_codes.DONE if report.is_intact or report.backup else exit_codes.FAILED


def _print_report(report: LogReport, *, is_repair: bool) -> None:
    print(f"{report.path}: {report.n_events} events, the next offset is {report.end}")
    if report.lost:
        print(f"lost before: {report.lost} events")
    for problem in report.problems:
        print(f"damaged: {problem}")
    for damaged in report.damaged[:_SHOWN]:
        print(f"damaged: {damaged}")
    if len(report.damaged) > _SHOWN:
        print(f"and {len(report.damaged) - _SHOWN} more places; --json shows all")
    if report.is_intact:
        print("Nothing is damaged.")
    elif report.backup is not None:
        n_events = sum(damaged.stop - damaged.first for damaged in report.damaged)
        if report.n_events:
            print(f"Repaired: {n_events} damaged events are left out, the others are kept.")
        else:
            print("SQLite can read no event of the file: the log goes on behind the lost ones.")
            print("`sqlite3 events.db .recover` may find more in the damaged file.")
        print(f"The damaged file is in {report.backup}.")
        print("The databases of the studies are not affected. Start the hub again.")
    elif not is_repair:
        print(
            "A hub delivers everything that is intact, and the databases of the studies are not"
            " affected."
        )
        print(
            "To take the damage out of the log, stop the hub and run: trialbus log check --repair"
        )
