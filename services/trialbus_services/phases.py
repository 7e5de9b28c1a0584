"""Phases: studies that build on each other, each keeping the best params of the one before.

`from_phase: foundation` puts the best params of that phase's finished study into `study.fixed`.
They are read from the Optuna storage once: a study that goes on keeps those it began with.
"""

from __future__ import annotations

import difflib
import shlex
import time
from typing import Any

import msgspec
import optuna
from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from trialbus.errors import SpecError
from trialbus.spec import Inherited, StudySpec
from trialbus_services import launcher, settings
from trialbus_services.monitor.terminal import shown as shown_params
from trialbus_services.optimizer.storage import shown, stored_study
from trialbus_services.optimizer.study import END, SPEC

_RECORD_S = 10.0
_TICK_S = 0.1
#: Ends after which a phase needs no more trials.
_DONE = ("exhausted", "converged", "timeout")


def run(config: DictConfig) -> int:
    """Run the study of a config, or its `phases` in order, and return the exit code.

    Raises:
        SpecError: The config is wrong, or the phase to build on is not there or not finished.
        TrialbusError: A service cannot be had.
    """
    console = Console()
    overrides = launcher.task_overrides()
    if not config.get("phases"):
        return launcher.run(config, _study(config, overrides, console), overrides, console)
    phases = _phases(config, overrides)
    for number, phase in enumerate(phases, 1):
        code = _run_phase(phase, f"phase {phase} ({number} of {len(phases)})", overrides, console)
        if code:
            return code
    return 0


def _run_phase(phase: str, title: str, overrides: list[str], console: Console) -> int:
    chosen = [*_without(overrides, "phase", "phases"), f"phase={phase}"]
    config = _composed(phase, chosen)
    url, spec = _url(config), settings.study(config)
    study = stored_study(url, spec.name)
    if study is not None and _finished(study) and _n_done(study) >= _wanted(study, spec):
        console.print(f"{title}: finished, {_summary(study)}", highlight=False, markup=False)
        return 0
    console.rule(title, style="dim")
    code = launcher.run(config, _study(config, chosen, console), chosen, console)
    if code == 0:
        wait_recorded(url, spec.name)
    return code


def wait_recorded(url: str, name: str) -> optuna.Study:
    """Return a study that has ended, once its end is in the storage.

    Raises:
        SpecError: It is not there in time.
    """
    deadline = time.monotonic() + _RECORD_S
    while True:
        study = stored_study(url, name)
        if study is not None and study.user_attrs.get(END):
            return study
        if time.monotonic() > deadline:
            raise SpecError(
                "storage.url", f"{shown(url)!r} does not have the end of study {name!r}"
            )
        time.sleep(_TICK_S)


def _study(config: DictConfig, overrides: list[str], console: Console) -> StudySpec:
    """Return the study of a config, with what an earlier phase gives it."""
    spec = settings.study(config)
    phase = config.get("from_phase")
    if phase is None:
        return spec
    found = _kept(config, spec, str(phase)) or _best(config, str(phase), overrides)
    fixed = {k: v for k, v in found.params.items() if k not in {*spec.params, *spec.fixed}}
    again = {k: v for k, v in found.params.items() if k in spec.params}
    where = f"from trial {found.trial} of {found.study!r}: {shown_params(fixed)}"
    console.print(where, style="dim", highlight=False, markup=False, soft_wrap=True)
    if again:
        text = f"searched again: {', '.join(again)} ({shown_params(again)} there)"
        console.print(text, style="dim", highlight=False, markup=False, soft_wrap=True)
    return msgspec.structs.replace(spec, fixed={**fixed, **spec.fixed}, inherited=found)


def _kept(config: DictConfig, spec: StudySpec, phase: str) -> Inherited | None:
    """Return what the study of this config was given when it began, if it has begun."""
    study = stored_study(_url(config), spec.name)
    given = study and study.user_attrs.get(SPEC, {}).get("inherited")
    found = msgspec.convert(given, Inherited) if given else None
    return found if found and found.phase == phase else None


def _best(config: DictConfig, phase: str, overrides: list[str]) -> Inherited:
    own = [o for o in overrides if o.startswith(("--config-dir", "storage", "bus", "hydra."))]
    chosen = [*own, f"phase={phase}"]
    name = settings.study(_composed(phase, chosen)).name
    url = _url(config)
    command = f"run it first: trialbus study {shlex.join(chosen)}"
    study = stored_study(url, name)
    if study is None:
        raise SpecError(
            "from_phase", f"{phase!r} has no study {name!r} in {shown(url)!r}; {command}"
        )
    if not _finished(study):
        raise SpecError(
            "from_phase",
            f"{phase!r} is not finished: study {name!r} in {shown(url)!r} has {_n_done(study)} "
            f"trials done and {study.user_attrs.get(END) or 'no end'}; {command}",
        )
    if len(study.directions) > 1:
        raise SpecError("from_phase", f"{phase!r} has several objectives, and so no best trial")
    best = study.best_trial
    return Inherited(
        phase=phase, study=name, trial=best.number, values=list(best.values), params=best.params
    )


def _finished(study: optuna.Study) -> bool:
    complete = (optuna.trial.TrialState.COMPLETE,)
    if study.user_attrs.get(END) not in _DONE:
        return False
    return bool(study.get_trials(deepcopy=False, states=complete))


def _wanted(study: optuna.Study, spec: StudySpec) -> int:
    """Return the trials that a study has to have: all, unless it ended for another reason."""
    return spec.n_trials if study.user_attrs.get(END) == "exhausted" else 0


def _n_done(study: optuna.Study) -> int:
    return sum(trial.state.is_finished() for trial in study.get_trials(deepcopy=False))


def _summary(study: optuna.Study) -> str:
    done = f"{_n_done(study)} trials"
    if len(study.directions) > 1:
        return done
    return f"{done}, best {study.best_value:.5g} in trial {study.best_trial.number}"


def _phases(config: DictConfig, overrides: list[str]) -> list[str]:
    try:
        phases: Any = config.phases
        plain = OmegaConf.to_container(phases) if OmegaConf.is_config(phases) else phases
        found = msgspec.convert(plain, list[str])
    except msgspec.ValidationError as error:
        raise SpecError("phases", f"{error} (in {config.phases!r})") from None
    for override in overrides:
        if override.lstrip("+").startswith("study.name="):
            raise SpecError(
                "study.name", f"{override!r} would give every one of {found} the same study"
            )
    return found


def _composed(phase: str, overrides: list[str]) -> DictConfig:
    """Compose a phase's config, in the search path of this process."""
    known = GlobalHydra.instance().config_loader().get_group_options("phase", ObjectType.CONFIG)
    if phase not in known:
        near = difflib.get_close_matches(phase, known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else f" (expected one of {', '.join(known)})"
        raise SpecError("from_phase", f"there is no phase {phase!r}{hint}")
    try:
        return compose("config", [o for o in overrides if not o.startswith("-")])
    except HydraException as error:
        raise SpecError(f"phase={phase}", str(error).splitlines()[0]) from None


def _without(overrides: list[str], *keys: str) -> list[str]:
    return [o for o in overrides if o.lstrip("+~").partition("=")[0] not in keys]


def _url(config: DictConfig) -> str:
    return settings.section(config, "storage", settings.Storage).url
