"""Sweep: runs the jobs of a Hydra application's sweep as the trials of a study."""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from hydra.errors import CompactHydraException
from hydra.types import HydraContext, TaskFunction
from hydra.utils import get_method
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from trialbus.errors import SpecError, TrialbusError
from trialbus.messages import events
from trialbus.study.spec import StudySpec
from trialbus.trainer.assignment import TRIAL_VARIABLE
from trialbus.trainer.attachment import MULTIRUN_ERROR
from trialbus.trainer.requester import TrialRequester
from trialbus_services.config.composing import compose_config
from trialbus_services.config.settings import PICKLE_SUFFIX
from trialbus_services.launcher.interruption import Interruption
from trialbus_services.launcher.launcher import (
    SPEC_SECTIONS,
    Follow,
    Plan,
    launch_study,
    make_plan,
)
from trialbus_services.optimizer.storage import find_study
from trialbus_services.process.exit_codes import ServiceError
from trialbus_services.sweeper.application import Application, write_application
from trialbus_services.sweeper.failures import FailureWatch, MetricWatch
from trialbus_services.sweeper.launching import StudyThread, make_launcher, run_batches
from trialbus_services.sweeper.results import write_multirun, write_results
from trialbus_services.sweeper.search_space import (
    SweepSpace,
    read_search_space,
    read_written_space,
)
from trialbus_services.sweeper.settings import (
    SweepSettings,
    build_spec,
    name_study,
    read_settings,
    rename_key,
)
from trialbus_services.worker.command_line import quote_for_hydra

logger = logging.getLogger(__name__)

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_JOB_MODULE = "trialbus_services.sweeper.job"


def run_sweep(
    config: DictConfig,
    hydra_context: HydraContext,
    task_function: TaskFunction,
    arguments: Sequence[str],
) -> None:
    """Run a sweep until its study has ended, and write the results.

    Args:
        config: Composed config of the application, with the section `hydra`.
        hydra_context: Loader of the configs of jobs, and callbacks of the application.
        task_function: The function under `@hydra.main`.
        arguments: Overrides of the command line.

    Raises:
        CompactHydraException: The sweep cannot run, or has failed; the text says why.
        SystemExit: A signal interrupted the sweep; the study can be resumed.
    """
    try:
        if os.environ.get(TRIAL_VARIABLE):
            raise SpecError("hydra.mode", MULTIRUN_ERROR)
        settings = read_settings(config)
        space = _read_space(settings, hydra_context, arguments)
        application = Application(
            config, hydra_context, task_function, space, _find_extension(settings)
        )
        application.check()
        _Sweep(settings, application).run()
    except TrialbusError as error:
        raise CompactHydraException(f"error: {error}") from None


class _Sweep:
    """A sweep whose settings are read."""

    def __init__(self, settings: SweepSettings, application: Application) -> None:
        self._settings = settings
        self._application = application
        self._name = name_study(settings, str(application.config.hydra.job.name))
        self._console = Console()

    def run(self) -> None:
        """Run the sweep until its study has ended, and write the results.

        Raises:
            TrialbusError: The sweep cannot run, or has failed.
            SystemExit: A signal interrupted the sweep.
        """
        folder = write_multirun(self._application.config)
        try:
            plan, end = self._run_study()
        except KeyboardInterrupt as error:
            if self._settings.study_name is None:
                self._print(f"hydra.sweeper.study_name={self._name} resumes the study")
            number: int = error.args[0] if error.args else signal.SIGINT
            raise SystemExit(128 + number) from None
        if end.reason == "failed" or not end.best_trials:
            reason = end.error or "no trial is complete"
            raise TrialbusError(f"study {self._name!r} failed: {reason}")
        self._print(f"results  {write_results(folder, plan.spec, end)}")

    def _run_study(self) -> tuple[Plan, events.StudyFinished]:
        """Run the study, and return how it was run and how it ended."""
        if self._settings.jobs == "launcher":
            return self._run_batches()
        with tempfile.TemporaryDirectory(prefix="trialbus-") as folder:
            file = Path(folder) / f"application{PICKLE_SUFFIX}"
            if self._settings.jobs == "fork":
                write_application(replace(self._application, is_forked=True), file)
                try:
                    plan = self._make_plan(_fork_jobs(file))
                    return plan, self._launch(plan)
                except ServiceError as error:
                    if "trainer.function" not in str(error):
                        raise
                    reason = str(error).partition(f"{file.name}': ")[2]
                    self._print(
                        "each job starts a new process (hydra.sweeper.jobs=spawn), since the "
                        f"application cannot be forked: {reason.partition(' (see ')[0]}"
                    )
            write_application(self._application, file)
            plan = self._make_plan(_spawn_jobs(file))
            return plan, self._launch(plan)

    def _run_batches(self) -> tuple[Plan, events.StudyFinished]:
        """Run the study with jobs that the user's launcher runs in batches."""
        if self._settings.custom_search_space is not None:
            raise SpecError(
                "hydra.sweeper.jobs",
                "'launcher' with custom_search_space, whose params a job asks for (expected fork "
                "or spawn)",
            )
        plan = self._make_plan(["launcher=none"])
        launcher = make_launcher(self._application)
        with (
            Interruption(_SIGNALS),
            StudyThread(lambda follow: self._launch(plan, follow)) as study,
        ):
            run_batches(
                study,
                self._application,
                launcher,
                lambda: TrialRequester(self._name, endpoint=plan.bus.endpoint, name="launcher"),
                self._settings.n_jobs,
            )
            return plan, study.wait()

    def _launch(self, plan: Plan, follow: Follow | None = None) -> events.StudyFinished:
        """Run the study on services of its own, or on those that run."""
        watch = FailureWatch(self._settings.max_failure_rate, self._settings.n_jobs)

        is_pruned = self._settings.pruner is not None
        metric_watch = MetricWatch(_get_judged_metric(plan.spec) if is_pruned else None)

        def follow_all(event: events.AnyEvent | None) -> None:
            watch.follow(event)
            metric_watch.follow(event)
            if follow is not None:
                follow(event)

        return launch_study(
            plan,
            self._console,
            report=False,
            signals=_SIGNALS,
            follow=follow_all,
            command=["python", *sys.argv],
        )

    def _make_plan(self, trainer: Sequence[str]) -> Plan:
        """Return the study and the settings of its services, checked."""
        settings = self._settings
        url = settings.storage_url
        overrides = [
            f"study.name={quote_for_hydra(self._name)}",
            *([] if url is None else [f"storage.url={quote_for_hydra(url)}"]),
            f"worker.slots={settings.n_jobs}",
            *_choose_group("sampler", settings.sampler),
            *_choose_group("pruner", "none" if settings.pruner is None else settings.pruner),
            *trainer,
            *settings.overrides,
        ]
        place = "in hydra.sweeper.overrides"
        try:
            with compose_config(overrides, given=SPEC_SECTIONS, place=place) as composed:
                return make_plan(composed, self._build_spec(composed.config))
        except SpecError as error:
            raise rename_key(error) from None

    def _build_spec(self, config: DictConfig) -> StudySpec:
        settings = self._settings
        sampler = settings.sampler
        if not isinstance(sampler, dict):
            sampler = _to_mapping(config.sampler)
        pruner = settings.pruner
        if isinstance(pruner, str):
            pruner = _to_mapping(config.pruner)
        n_before = 0
        if settings.n_trials_of == "call":
            study = find_study(config.storage.url, self._name)
            n_before = 0 if study is None else len(_list_ended(study))
        return build_spec(
            settings,
            self._name,
            self._application.space,
            n_before + settings.n_trials,
            sampler=sampler,
            pruner=pruner or None,
        )

    def _print(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)


def _read_space(
    settings: SweepSettings, hydra_context: HydraContext, arguments: Sequence[str]
) -> SweepSpace:
    space = read_search_space(settings.params or {}, arguments, hydra_context.config_loader)
    if settings.search_space:
        written = read_written_space(settings.search_space)
        space.params = {**written, **space.params}
        for key in space.fixed:
            space.params.pop(key, None)
    return space


def _find_extension(settings: SweepSettings) -> Callable[..., Any] | None:
    """Return the function `hydra.sweeper.custom_search_space`, if there is one."""
    path = settings.custom_search_space
    if path is None:
        return None
    try:
        return get_method(path)
    except (ImportError, ValueError) as error:
        raise SpecError(
            "hydra.sweeper.custom_search_space",
            f"{path!r} cannot be imported: {' '.join(str(error).split())} (expected "
            "package.module.function)",
        ) from None


def _fork_jobs(file: Path) -> list[str]:
    return [
        "trainer=function",
        f"trainer.function={quote_for_hydra(str(file))}",
    ]


def _spawn_jobs(file: Path) -> list[str]:
    return [
        "trainer=command",
        f"trainer.command={quote_for_hydra([sys.executable, '-m', _JOB_MODULE, str(file)])}",
        "trainer.params_as=file",  # which no name of a param makes ambiguous
    ]


def _get_judged_metric(spec: StudySpec) -> str:
    """Return the metric that the pruner judges."""
    return spec.metrics[0] if spec.prune_by is None else spec.prune_by.metric


def _choose_group(group: str, value: Any) -> list[str]:
    return [f"{group}={quote_for_hydra(value)}"] if isinstance(value, str) else []


def _to_mapping(config: Any) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", OmegaConf.to_container(config, resolve=True) if config else {})


def _list_ended(study: Any) -> list[Any]:
    return [trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()]
