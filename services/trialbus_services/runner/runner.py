"""OptunaRunner: runs the studies of a spec file in order."""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from rich.console import Console
from rich.markup import escape
from rich.panel import Panel

from trialbus.errors import SpecError, TrialbusError
from trialbus_services.config import settings
from trialbus_services.config.composing import compose_config
from trialbus_services.config.secrets import mask_secrets
from trialbus_services.launcher import launcher
from trialbus_services.launcher.dashboard import serve_dashboard
from trialbus_services.optimizer.storage import find_study
from trialbus_services.process import gpus, paths
from trialbus_services.runner.results import tidy_checkpoints, write_results
from trialbus_services.runner.spec import RunnerSpec, load, parse
from trialbus_services.runner.study_config import StudyConfig
from trialbus_services.runner.training import Training, build_overrides, check_not_imported
from trialbus_services.worker.command_line import quote_for_hydra


class OptunaRunner:
    """Runs the studies of a spec, on a bus with hub, optimizer and worker as `trialbus study` has.

    Args:
        spec_path: A spec file.
        spec: A spec, or what its file would hold, in place of a file.
        trainer: What trials run, in place of the spec's `trainer`: a command, `module:function`,
            or a function at the top level of a module, called with each `trialbus.Trial`.
        overrides: Of `trialbus study`, for what a spec does not say: `bus.dir=/tmp/bus`.
        console: Console on which progress is shown.

    Raises:
        SpecError: The spec cannot be used; names the file, the key and the value.

    Example:
        >>> runner = OptunaRunner("my_spec.yaml", trainer=train)  # doctest: +SKIP
        >>> [study] = runner.run_all_studies()  # doctest: +SKIP
        >>> study.best_params  # doctest: +SKIP
    """

    def __init__(
        self,
        spec_path: str | os.PathLike[str] | None = None,
        *,
        spec: RunnerSpec | Mapping[str, Any] | None = None,
        trainer: Training | None = None,
        overrides: Sequence[str] = (),
        console: Console | None = None,
    ) -> None:
        if (spec_path is None) == (spec is None):
            raise SpecError("spec_path", "expected either spec_path or spec")
        self._folder = Path(spec_path).parent if spec_path is not None else Path()
        if spec_path is not None:
            self.spec = load(Path(spec_path))
        else:
            self.spec = spec if isinstance(spec, RunnerSpec) else parse(spec or {})
        training = trainer if trainer is not None else self.spec.trainer
        if training is None:
            raise SpecError(
                "trainer", "there is none (expected a command, module:function or a function)"
            )
        self._training = build_overrides(training, self._folder)
        self._overrides = list(overrides)
        self._console = console or Console()

    def run_study(self, study_config: StudyConfig) -> optuna.Study:
        """Run or continue a study to the end and write the results.

        Args:
            study_config: One of `spec.studies`, or your own.

        Raises:
            SpecError: The study cannot be run as specified.
            TrialbusError: The study failed, or has no complete trial; the results are written
                nevertheless.
            KeyboardInterrupt: The user interrupted; the same call continues the study.
        """
        check_not_imported()
        spec, url = study_config.spec(), study_config.storage
        if find_study(url, spec.name) is not None and not study_config.load_if_exists:
            raise SpecError(
                "load_if_exists",
                f"false, and {mask_secrets(url)!r} has a study {spec.name!r} already "
                "(expected true, or another study_name)",
            )
        paths.make_directory(Path(self.spec.results_dir), "results_dir")
        overrides = self._collect_overrides(study_config)
        report = self.spec.generate_plots or self.spec.save_study_plots
        with self._serve_dashboard(url):
            given, place = launcher.SPEC_SECTIONS, "in the overrides of OptunaRunner"
            with compose_config(overrides, given=given, place=place) as composition:
                plan = launcher.make_plan(composition, spec)
                end = launcher.launch_study(plan, self._console, report=report)
            # The optimizer declares a study finished after the storage has all of the study; a
            # study that the optimizer refused may not be there.
            study = find_study(url, spec.name)
        if study is not None:
            for path in write_results(study, spec, end, Path(self.spec.results_dir)):
                self._print(f"results  {path}")
            tidy_checkpoints(study, study_config)
        if study is None or end.reason == "failed" or not end.best_trials:
            reason = (end.error or end.reason).strip().splitlines()[-1]
            raise TrialbusError(f"study {spec.name!r} failed: {reason}")
        return study

    def run_all_studies(self) -> list[optuna.Study]:
        """Run every study of the spec, in order, and return the studies.

        Raises:
            TrialbusError: Studies failed; the others have run.
        """
        check_not_imported()
        self._print_introduction()
        studies: list[optuna.Study] = []
        failures: list[str] = []
        for study in self.spec.studies:
            try:
                studies.append(self.run_study(study))
            except TrialbusError as error:
                failures.append(str(error))
        if self.spec.notify_on_complete:
            self._console.bell()
        if failures:
            raise TrialbusError("; ".join(failures))
        return studies

    def _print_introduction(self) -> None:
        spec = self.spec
        lines = [line for line in (spec.description, _list_studies(spec)) if line]
        title = escape(" ".join(filter(None, [spec.name or "studies", spec.version])))
        self._console.print(Panel.fit(escape("\n".join(lines)), title=title, title_align="left"))

    def _collect_overrides(self, study: StudyConfig) -> list[str]:
        """Return the overrides of `trialbus study` that run a study as the spec says."""
        limit = self.spec.max_concurrent_trials
        slots = limit if study.n_jobs in (None, -1) else min(limit, study.n_jobs or limit)
        capacity = gpus.count_slots(len(gpus.list_visible_gpus()), self.spec.gpu_per_trial)
        if capacity and capacity < slots:
            self._print(
                f"{capacity} trials at once in place of {slots}, limited by the GPUs of this "
                f"machine (gpu_per_trial {self.spec.gpu_per_trial:g})",
                style="yellow",
            )
            slots = capacity
        return [
            f"study.name={quote_for_hydra(study.study_name)}",
            f"storage.url={quote_for_hydra(study.storage)}",
            f"report.dir={quote_for_hydra(str(Path(self.spec.results_dir).absolute()))}",
            f"worker.slots={slots}",
            "worker.gpus=auto",
            f"worker.gpus_per_trial={self.spec.gpu_per_trial}",
            f"log_level={self.spec.log_level}",
            *self._training,
            *self._overrides,
        ]

    @contextmanager
    def _serve_dashboard(self, url: str) -> Generator[None]:
        """Serve Optuna's dashboard during the block, where the spec names a port."""
        port = self.spec.dashboard_port
        if port is None:
            yield
            return
        dashboard = settings.DashboardSettings(port=port)
        with serve_dashboard(settings.StorageSettings(url=url), dashboard):
            self._print(f"dashboard  http://{dashboard.host}:{port}")
            yield

    def _print(self, line: str, style: str | None = None) -> None:
        self._console.print(line, style=style, highlight=False, markup=False, soft_wrap=True)


def _list_studies(spec: RunnerSpec) -> str:
    return "\n".join(
        f"{study.study_name}: {study.n_trials} trials, {study.direction} {study.metric_name}"
        for study in spec.studies
    )
