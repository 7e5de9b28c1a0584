"""`trialbus best`: the params of a study's best trial, as the next command takes them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import get_args

import optuna
from optuna.trial import FrozenTrial

from trialbus.errors import SpecError
from trialbus_services.cli.options import parse_natural
from trialbus_services.cli.stored_studies import add_storage, compose_studies, split_overrides
from trialbus_services.process import exit_codes
from trialbus_services.reporter.best_params import (
    Form,
    describe_trial,
    find_form,
    format_params,
)
from trialbus_services.reporter.snapshot import Snapshot
from trialbus_services.reporter.study_summary import summarize_study

_EPILOG = """\
examples:
  trialbus best digits                                 as the study's program takes its params
  python train.py $(trialbus best digits --as flags)
  env $(trialbus best digits --as env) python train.py
  trialbus best digits --as yaml > conf/best.yaml
  trialbus best digits --trial 7                       of another trial, or one of a Pareto front

The params go to standard output; which trial they are of goes to standard error. Texts are quoted
for a shell where they need it: eval "python train.py $(trialbus best digits)" passes any text on.
"""


def best(arguments: Sequence[str]) -> int:
    """Print the params of the best trials of a study and return the exit code.

    Raises:
        SpecError: There is no such study, trial or storage, or a value of the configuration cannot
            be used.
    """
    parser = argparse.ArgumentParser(
        prog="trialbus best",
        description="Print the params of the best trial of a study, to put into the next command.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "study", nargs="?", help="name of a study, or a study file; without it, studies are listed"
    )
    parser.add_argument(
        "--as",
        dest="form",
        choices=get_args(Form),
        help="form of the params (default: as the study's program takes them, else flags)",
    )
    parser.add_argument("--trial", type=parse_natural, help="number of a trial")
    add_storage(parser)
    overrides, others = split_overrides(arguments)
    options = parser.parse_intermixed_args(others)
    names = [] if options.study is None else [options.study]
    with compose_studies(options, overrides, names) as stored:
        pass  # only the storage is needed
    if not names:
        stored.print_names()
        return exit_codes.WRONG_INPUT
    (study,) = stored.load(names)
    return _print_best(study, options.form, options.trial)


def _print_best(study: optuna.Study, form: Form | None, number: int | None) -> int:
    snapshot = Snapshot(study)
    summary = summarize_study(snapshot)
    trials = summary.best if number is None else [_find_trial(snapshot, number)]
    if not trials:
        counts = ", ".join(f"{count} {state}" for state, count in summary.counts.items())
        print(
            f"error: study {summary.name!r} has no best trial: none is complete and feasible "
            f"({counts or 'no trials'}); --trial N prints the params of any trial",
            file=sys.stderr,
        )
        return exit_codes.FAILED
    form = form or find_form(summary)
    for trial in trials:
        print(describe_trial(trial, summary), file=sys.stderr, flush=True)
        if form == "yaml" and trial is not trials[0]:
            print("---")
        print(format_params(trial, snapshot, summary, form), flush=True)
    if len(trials) > 1:
        print("choose one of these trials with --trial N", file=sys.stderr)
    return exit_codes.DONE


def _find_trial(study: Snapshot, number: int) -> FrozenTrial:
    for trial in study.recorded:
        if trial.number == number:
            return trial
    expected = f"0 to {len(study.recorded) - 1}" if study.recorded else "a study with trials"
    raise SpecError("--trial", f"{study.study_name!r} has no trial {number} (expected {expected})")
