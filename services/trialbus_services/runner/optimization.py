"""Optimization: one study from a script or a notebook, with an objective function or a training."""

from __future__ import annotations

import os
import sys
import tempfile
import uuid
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import optuna
from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.study import StudyDirection
from rich.console import Console

import trialbus
from trialbus.errors import SpecError, TrialbusError
from trialbus.study.spec import Direction, StudySpec
from trialbus.study.spec_loading import load_spec
from trialbus.study.validation import is_mapping
from trialbus_services.config import sections, settings
from trialbus_services.config.composing import compose_config
from trialbus_services.config.search_space import expand_params
from trialbus_services.launcher import launcher
from trialbus_services.optimizer.distributions import make_param
from trialbus_services.optimizer.storage import find_study
from trialbus_services.runner.components import describe_component
from trialbus_services.runner.optuna_arguments import (
    check_replaced,
    convert_catch,
    refuse_study,
)
from trialbus_services.runner.pickled_function import (
    build_search_path,
    is_importable,
    write_function,
)
from trialbus_services.runner.training import build_overrides, check_not_imported
from trialbus_services.worker import fork_server
from trialbus_services.worker.command_line import quote_for_hydra

_OBJECTIVE_MODULE = "trialbus_services.worker.objective"


@refuse_study
def optimize(
    function: Callable[[optuna.Trial], Any] | Callable[[trialbus.Trial], Any],
    n_trials: int = 100,
    *,
    space: Mapping[str, Any] | None = None,
    metric: str | Sequence[str] | None = None,
    direction: Direction | StudyDirection | None = None,
    directions: Sequence[Direction | StudyDirection] | None = None,
    study_name: str | None = None,
    storage: str | None = None,
    sampler: str | Mapping[str, Any] | BaseSampler | None = None,
    pruner: str | Mapping[str, Any] | BasePruner | None = None,
    n_jobs: int = 2,
    timeout: float | None = None,
    load_if_exists: bool = True,
    seed: int = 0,
    enqueue: Sequence[Mapping[str, Any]] = (),
    report: bool = False,
    overrides: Sequence[str] = (),
    console: Console | None = None,
    catch: type[Exception] | Iterable[type[Exception]] | None = None,
    show_progress_bar: bool = True,
    gc_after_trial: bool = False,  # noqa: ARG001 - a trial's memory ends with the trial's process
    **fields: Any,
) -> optuna.Study:
    """Run a study to its end on the bus, and return the study from its storage.

    Hub, optimizer and workers are started beside this process, unless they run already, and end
    with the study. Each trial runs in a process of its own, `n_jobs` at a time, and everything else
    is as for any study: a killed trial is run again, and the same call continues an interrupted
    study of the same name.

    Args:
        function: Without `space` an objective function of Optuna, called with an `optuna.Trial`
            whose `suggest_*`, `report`, `should_prune` and `set_user_attr` work as usual. With
            `space` a training, called with a `trialbus.Trial`. It may be defined in a script, in a
            cell of a notebook, or in a module; the first two need `cloudpickle`.
        n_trials: Total number of trials of the study, with those that it has already.
        space: Search space by param: distributions of Optuna, or what a study file has under
            `study.params`.
        metric: Name of the objective; of several objectives a list of names. By default `value`,
            and `value_0`, `value_1`, ... of several.
        direction: `minimize` or `maximize`; by default `minimize`, as in Optuna.
        directions: Direction of each of several objectives, whose names `metric` may list.
        study_name: Name of the study; by default a new one.
        storage: URL of the Optuna storage; by default `sqlite:///optuna_studies.db`.
        sampler: Sampler: a name, `{"type": <class>, <argument>: <value>}`, or an object; by default
            `TPESampler`.
        pruner: Pruner in the same forms; by default `MedianPruner`, and none for several
            objectives. `NopPruner` prunes nothing.
        n_jobs: Number of trials that run at the same time; -1 for one for each CPU.
        timeout: Seconds after which no further trial begins; None for no limit.
        load_if_exists: Whether a study of this name is continued; otherwise it is refused.
        seed: Seed of the study, and of a sampler that has none.
        enqueue: Params of trials to run first.
        report: Whether a report of the study is written to the folder `reports`.
        overrides: Of `trialbus study`, for what has no argument here, as `bus.dir=/tmp/bus`.
        console: Console on which progress is shown; by default the terminal or the notebook's cell.
        catch: `Exception` goes on after a failed trial and `()` ends with the first; by default the
            study goes on until `max_failures`, 5, trials in a row have failed.
        show_progress_bar: Whether progress and the summary are shown.
        gc_after_trial: Has no effect, as the process of each trial ends with the trial.
        fields: Further fields of a study, as `budget=20` or `max_failures=1`.

    Raises:
        SpecError: An argument cannot be used, or the function cannot travel to another process.
        TrialbusError: The study failed, trials failed and none is complete, or a service cannot be
            started.
        KeyboardInterrupt: Interrupted; everything that was started has ended.

    Example:
        >>> study = optimize(objective, n_trials=100)  # doctest: +SKIP
        >>> study.best_params  # doctest: +SKIP

    Source:
        `optuna.study.Study.optimize`.
    """
    check_not_imported()
    check_replaced(fields)
    if not isinstance(storage, str | None):  # pyright: ignore[reportUnnecessaryIsInstance] - Optuna takes objects
        raise SpecError(
            "storage",
            f"{storage!r} cannot travel to the optimizer (expected a URL, for example "
            "sqlite:///optuna_studies.db)",
        )
    spec = _make_spec(
        space=space,
        metric=metric,
        direction=direction,
        directions=directions,
        name=study_name or f"no-name-{uuid.uuid4()}",
        sampler=sampler,
        pruner=pruner,
        fields={
            "n_trials": n_trials,
            "timeout_s": timeout,
            "seed": seed,
            "enqueue": [dict(params) for params in enqueue],
            **convert_catch(catch),
            **fields,
        },
    )
    arguments = [
        f"study.name={quote_for_hydra(spec.name)}",
        f"worker.slots={_count_jobs(n_jobs)}",
        *([f"storage.url={quote_for_hydra(storage)}"] if storage is not None else []),
    ]
    with (
        _describe_function(function, is_objective=space is None) as training,
        compose_config(
            [*arguments, *training, *overrides],
            given=launcher.SPEC_SECTIONS,
            place="in the arguments of optimize",
        ) as composition,
    ):
        url = sections.read_section(composition.config, settings.StorageSettings).url
        if not load_if_exists and find_study(url, spec.name) is not None:
            raise SpecError(
                "study_name",
                f"{spec.name!r} is in the storage already (expected another name, or "
                "load_if_exists=True)",
            )
        plan = launcher.make_plan(composition, spec)
        end = launcher.launch_study(
            plan,
            console or Console(quiet=not show_progress_bar),
            report=report,
            command=_describe_command(),
        )
        study = find_study(url, spec.name)
    has_failed = end.reason == "failed" or (end.counts.failed and not end.counts.complete)
    if study is None or has_failed:
        raise TrialbusError(f"study {spec.name!r} failed: {(end.error or end.reason).strip()}")
    return study


def _make_spec(
    *,
    space: Mapping[str, Any] | None,
    metric: str | Sequence[str] | None,
    direction: Direction | StudyDirection | None,
    directions: Sequence[Direction | StudyDirection] | None,
    name: str,
    sampler: object,
    pruner: object,
    fields: Mapping[str, Any],
) -> StudySpec:
    """Return the specification of a study, with errors that name the arguments of `optimize`."""
    if direction is not None and directions is not None:
        raise SpecError("directions", f"{directions!r} is given beside direction (expected one)")
    if directions is not None:
        given = directions
    elif direction is None and metric is not None and not isinstance(metric, str):
        given = ["minimize"] * len(metric)
    else:
        given = [direction or "minimize"]
    all_directions = [_name_direction(direction) for direction in given]
    metrics = [metric] if isinstance(metric, str) else list(metric or ())
    if not metrics:
        is_single = len(all_directions) == 1
        metrics = ["value"] if is_single else [f"value_{i}" for i in range(len(all_directions))]
    if len(metrics) != len(all_directions):
        raise SpecError(
            "metric",
            f"{len(metrics)} names for {len(all_directions)} directions (expected one for each)",
        )
    if pruner is None:
        pruner = "MedianPruner" if len(metrics) == 1 else "NopPruner"
    study: dict[str, Any] = {
        "name": name,
        "objective": [
            {"metric": metric, "direction": direction}
            for metric, direction in zip(metrics, all_directions, strict=True)
        ],
        **({"define_by_run": True} if space is None else {"params": _describe_space(space)}),
        **fields,
    }
    return load_spec(
        study,
        sampler=describe_component("sampler", "TPESampler" if sampler is None else sampler),
        pruner=describe_component("pruner", pruner),
    )


def _name_direction(direction: str | StudyDirection) -> str:
    return direction.name.lower() if isinstance(direction, StudyDirection) else direction


def _describe_space(space: Mapping[str, Any]) -> dict[str, Any]:
    """Return a search space as a study file has it."""
    if not is_mapping(space):
        expected = "expected params by name, as {'lr': 'interval(0, 1)'}"
        raise SpecError("space", f"{space!r} ({expected})")
    return expand_params(
        {
            name: msgspec.to_builtins(make_param(param))
            if isinstance(param, BaseDistribution)
            else param
            for name, param in space.items()
        }
    )


def _describe_command() -> list[str]:
    """Return the command line of the script that calls `optimize`."""
    file = getattr(sys.modules["__main__"], "__file__", None)
    return ["python", *sys.argv] if file else ["optimize(...) in an interactive session"]


def _count_jobs(n_jobs: int) -> int:
    if n_jobs != -1 and n_jobs < 1:
        raise SpecError("n_jobs", f"{n_jobs} is below 1 (expected a number of trials, or -1)")
    return (os.cpu_count() or 1) if n_jobs == -1 else n_jobs


@contextmanager
def _describe_function(function: Callable[..., Any], *, is_objective: bool) -> Generator[list[str]]:
    """Return the overrides that let a worker call a function, which a file may hold meanwhile.

    Raises:
        SpecError: The function cannot travel to another process.
    """
    if not callable(function):
        raise SpecError("function", f"{function!r} cannot be called (expected a function)")
    preload = f"+trainer.env.{fork_server.PRELOAD_VARIABLE}={_OBJECTIVE_MODULE}"
    further = [preload] if is_objective else []
    if is_importable(function):
        yield [*build_overrides(function, Path()), *further]
        return
    with tempfile.TemporaryDirectory(prefix="trialbus-") as folder:
        path = write_function(function, Path(folder))
        yield [
            "trainer=function",
            f"trainer.function={quote_for_hydra(str(path))}",
            f"+trainer.env.PYTHONPATH={quote_for_hydra(build_search_path())}",
            *further,
        ]
