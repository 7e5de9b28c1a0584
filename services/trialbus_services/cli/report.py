"""`trialbus report`: a report of any study in any storage of Optuna."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from trialbus_services.cli.stored_studies import add_storage, compose_studies, split_overrides
from trialbus_services.config import sections, settings
from trialbus_services.process import exit_codes
from trialbus_services.reporter.staging import make_comparison, make_report

_EPILOG = """\
examples:
  trialbus report digits                            from the storage of the configuration
  trialbus report conf/digits.yaml                  the study of a study file
  trialbus report digits --storage optuna.db        of any study of Optuna: a file, or a URL
  trialbus report one two --compare                 several studies in one page
  trialbus report digits storage=postgresql report.dir=elsewhere

The study may still run; no bus is needed. KEY=VALUE is as for the other commands. A study whose
name looks like that goes after "--".
"""


def report(arguments: Sequence[str]) -> int:
    """Write the reports of studies, print the paths of the pages, and return the exit code.

    Raises:
        SpecError: There is no such study or storage, or a value of the configuration cannot be
            used.
    """
    parser = argparse.ArgumentParser(
        prog="trialbus report",
        description="Write the report of a study that runs or has ended, and print its paths.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "study", nargs="*", help="name of a study; without a name the studies are listed"
    )
    add_storage(parser)
    parser.add_argument("--dir", type=Path, help="folder of the reports")
    parser.add_argument("--compare", action="store_true", help="all studies in one page")
    overrides, others = split_overrides(arguments)
    options = parser.parse_intermixed_args(others)
    if options.compare and len(options.study) < 2:
        parser.error("--compare needs two studies or more")
    with compose_studies(options, overrides, options.study) as stored:
        section = sections.read_section(stored.composed.config, settings.ReporterSettings)
    if not options.study:
        stored.print_names()
        return exit_codes.WRONG_INPUT
    studies = stored.load(options.study)
    directory = options.dir or Path(section.dir)
    try:
        if options.compare:
            print(*make_comparison(studies, directory, section), sep="\n")
        else:
            for study in studies:
                print(*make_report(study, directory, section), sep="\n", flush=True)
    except KeyboardInterrupt:
        print("interrupted; earlier reports are unchanged", file=sys.stderr)
        return exit_codes.INTERRUPTED
    return exit_codes.DONE
