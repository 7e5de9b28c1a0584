"""Spec files: several studies and the settings of a run, in a YAML file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from trialbus.errors import SpecError
from trialbus.study.validation import convert
from trialbus_services.config.yaml_file import read_mapping
from trialbus_services.launcher import launcher
from trialbus_services.process import gpus
from trialbus_services.process.listening import check_port
from trialbus_services.runner.study_config import StudyConfig


class RunnerSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Content of a spec file."""

    studies: list[StudyConfig]
    """Studies in the order in which they run, one after the other."""

    name: str = ""
    """Title that is shown before the studies run."""

    description: str = ""
    """Text that is shown under the title."""

    version: str = ""
    """Version of the file, shown beside the title."""

    trainer: list[str] | str | None = None
    """What trials run: a command as a list, or `module:function`; None where it is given to
    `OptunaRunner`."""

    results_dir: str = "sweep_results"
    """Folder of the results, relative to the working directory."""

    dashboard_port: int | None = None
    """Port of this machine where Optuna's dashboard is served while studies run, for example 8052;
    None for no dashboard."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Least level of the messages in the logs of the services."""

    generate_plots: bool = False
    """Whether the report of each study is written, with its figures."""

    save_study_plots: bool = False
    """Another name of `generate_plots`; either asks for reports."""

    notify_on_complete: bool = False
    """Whether the bell of the terminal is rung when all studies have ended."""

    max_concurrent_trials: int = 4
    """Trials that run at the same time."""

    gpu_per_trial: float = 1.0
    """GPUs of one trial, or the share of one GPU, where there are any."""

    def __post_init__(self) -> None:
        if not self.studies:
            raise ValueError("studies is empty (expected at least one)")
        if self.max_concurrent_trials < 1:
            raise ValueError(
                f"max_concurrent_trials {self.max_concurrent_trials} is below 1 "
                "(expected a number of trials)"
            )
        if self.dashboard_port is not None:
            check_port(self.dashboard_port, "dashboard_port")
        gpus.check_settings(None, self.gpu_per_trial)
        names = [study.study_name for study in self.studies]
        repeated = {name for name in names if names.count(name) > 1}
        if repeated:
            raise ValueError(f"studies has {', '.join(sorted(repeated))} twice (expected it once)")


def load(path: Path) -> RunnerSpec:
    """Read a spec file and check every study in the file.

    Raises:
        SpecError: The file cannot be read or used; names the file, the key and the value.
    """
    data = read_mapping(path)
    try:
        return parse(data, folder=path.parent)
    except SpecError as error:
        raise SpecError(f"{path}: {error.key}", error.problem) from None


def parse(data: Mapping[str, Any], folder: Path = Path()) -> RunnerSpec:
    """Build a spec from the content of a file, and check every study of the spec.

    Args:
        data: The content.
        folder: Folder to which paths in the content are relative.

    Raises:
        SpecError: A key is unknown or a value cannot be used; names the key and the value.
    """
    try:
        spec: RunnerSpec = convert("", data, RunnerSpec)
    except SpecError as error:
        raise SpecError(error.key or "spec", error.problem) from None
    studies = [_resolve_base_config(study, folder) for study in spec.studies]
    for i, study in enumerate(studies):
        try:
            launcher.check_spec(study.spec())
        except SpecError as error:
            raise SpecError(f"studies[{i}].{error.key}", error.problem) from None
    return msgspec.structs.replace(spec, studies=studies)


def _resolve_base_config(study: StudyConfig, folder: Path) -> StudyConfig:
    """Return a study with the path of the base configuration relative to the working directory."""
    base = study.base_config
    if isinstance(base, str) and base.endswith((".yaml", ".yml")):
        return msgspec.structs.replace(study, base_config=str(folder / base))
    return study
