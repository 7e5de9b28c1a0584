"""Multirun: checks the jobs of `trialbus study -m`: names of their studies, and their folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser

from trialbus.errors import SpecError
from trialbus_services.config import composing

_SWEEPER = "hydra/sweeper"


def check_jobs(arguments: Sequence[str]) -> None:
    """Check that no two jobs of a multirun have the same study, and that all stay in this folder.

    Jobs that another sweeper than Hydra's own chooses are not known before they run.

    Args:
        arguments: Arguments of `trialbus study`, with `--multirun`.

    Raises:
        SpecError: Two jobs have the same study, which would be run and reported twice, or jobs
            change their folder.
        ConfigError: The config of a job cannot be composed.
    """
    jobs: dict[str, list[str]] = {}
    for job in _list_jobs(arguments):
        with composing.compose_config(job) as composition:
            if HydraConfig.get().job.chdir:
                raise SpecError(
                    "hydra.job.chdir",
                    "true would move the bus, the storage and the reports of each job to another "
                    "folder (expected false; trainer.cwd is the folder of trainings)",
                )
            if composition.config.get("phases"):
                return
            name = str(composition.config.study.name)
        before = jobs.setdefault(name, job)
        if before is not job:
            raise SpecError(
                "study.name",
                f"{name!r} is the study of two jobs of --multirun, the job of "
                f"{_format_difference(before, job)} and the job of "
                f"{_format_difference(job, before)}; give each job a study of its own, for example "
                f"by 'study.name={name}-${{hydra:job.num}}'",
            )


def _format_difference(job: list[str], other: list[str]) -> str:
    """Return the overrides of a job that another job does not have, except for its number."""
    return " ".join(override for override in job[:-1] if override not in other)


def _list_jobs(arguments: Sequence[str]) -> Iterator[list[str]]:
    """Yield the arguments of each job, as Hydra's sweeper makes the jobs."""
    options = composing.parse_arguments(arguments)
    overrides = OverridesParser.create().parse_overrides(options.overrides)
    if any(override.key_or_group == _SWEEPER for override in overrides):
        return
    batches = BasicSweeper.split_arguments(overrides, None)
    for number, job in enumerate(job for batch in batches for job in batch):
        yield composing.format_arguments(options, [*job, f"hydra.job.num={number}"])
