"""`trialbus init`: write a first study file for a training script."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from trialbus.errors import SpecError
from trialbus_services.cli.starting.printed_metrics import (
    find_printed_line,
    find_reported_metric,
    is_reading_params,
)
from trialbus_services.cli.starting.script_options import read_options
from trialbus_services.cli.starting.starting_config import make_starting_config
from trialbus_services.process import exit_codes, paths


def run(arguments: Sequence[str]) -> int:
    """Write the study file of the script that a command line names, and return the exit code.

    Raises:
        SpecError: The script cannot be read, or there is a file already.
    """
    parser = argparse.ArgumentParser(
        prog="trialbus init",
        description="Look at the options of a training script and write a first study file for it. "
        "The script runs only as far as it reads its options.",
    )
    parser.add_argument("script", type=Path, help="Python script, for example train.py")
    parser.add_argument(
        "--output", type=Path, help="file to write; by default conf/<name of the script>.yaml"
    )
    parser.add_argument("--force", action="store_true", help="replace the file if there is one")
    options = parser.parse_args(arguments)
    script: Path = options.script
    output: Path = options.output or Path("conf") / f"{script.stem}.yaml"
    if output.exists() and not options.force:
        raise SpecError(
            "--output", f"{str(output)!r} is there already (expected --force to replace)"
        )
    script_options = read_options(script)
    config = make_starting_config(
        script,
        script_options,
        find_printed_line(script),
        find_reported_metric(script),
        reads_params=is_reading_params(script),
    )
    paths.make_directory(output.parent, "--output")
    output.write_text(config.text, encoding="utf-8")
    print(f"{output}: {config.n_params} params of {len(script_options.options)} options")
    if config.guess:
        print(f"change it: {config.guess} are guesses, since the script prints no metric")
    print(f"check it:  trialbus study {output} --dry-run")
    print(f"run it:    trialbus study {output}")
    return exit_codes.DONE
