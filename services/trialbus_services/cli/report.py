"""`trialbus report`: a report of any study in any storage of Optuna."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import optuna

from trialbus_services.config import sections, settings
from trialbus_services.config.composing import compose_config
from trialbus_services.config.secrets import mask_secrets
from trialbus_services.process import exit_codes
from trialbus_services.reporter.staging import make_comparison, make_report
from trialbus_services.reporter.storage_reader import list_study_names, load_study, open_storage

_OVERRIDE = re.compile(r"[+~]*[\w./@-]+=")
_EPILOG = """\
examples:
  trialbus report digits                            from the storage of the configuration
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
    parser.add_argument("--storage", help="a storage's URL, or a SQLite or journal file")
    parser.add_argument("--dir", type=Path, help="folder of the reports")
    parser.add_argument("--compare", action="store_true", help="all studies in one page")
    parser.add_argument("--config-dir", type=Path, help="a user's config tree")
    overrides, others = _split_overrides(arguments)
    options = parser.parse_intermixed_args(others)
    if options.compare and len(options.study) < 2:
        parser.error("--compare needs two studies or more")
    tree = [] if options.config_dir is None else [f"--config-dir={options.config_dir}"]
    with compose_config([*tree, *overrides]) as composition:
        url = (
            options.storage
            or sections.read_section(composition.config, settings.StorageSettings).url
        )
        section = sections.read_section(composition.config, settings.ReporterSettings)
    directory = options.dir or Path(section.dir)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = open_storage(url)
    if not options.study:
        print(f"error: which study? {mask_secrets(url)!r} has:", file=sys.stderr)
        print("\n".join(list_study_names(storage, url)) or "none", file=sys.stderr)
        return exit_codes.WRONG_INPUT
    studies = [load_study(name, storage, url) for name in dict.fromkeys(options.study)]
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


def _split_overrides(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the overrides of Hydra among arguments, and the other arguments."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    overrides = [argument for argument in arguments[:end] if _OVERRIDE.match(argument)]
    overrides = [argument for argument in overrides if not argument.startswith("-")]
    others = [argument for argument in arguments[:end] if argument not in overrides]
    return overrides, [*others, *arguments[end:]]
