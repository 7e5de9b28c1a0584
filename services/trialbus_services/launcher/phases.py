"""Phases: studies that build on each other, each keeping the best params of the one before.

`from_phase: foundation` puts the best params of that phase's finished study into `study.fixed`.
They are read from the Optuna storage once: a study that goes on keeps those it began with.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec
import optuna
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from trialbus.errors import SpecError
from trialbus.study.spec import Inherited, StudySpec
from trialbus.study.validation import format_expected
from trialbus_services.config import sections, settings
from trialbus_services.config.composing import Composed, composed
from trialbus_services.launcher import launcher
from trialbus_services.optimizer.attributes import END, SPEC
from trialbus_services.optimizer.storage import shown, stored_study
from trialbus_services.process import exit_codes
from trialbus_services.views.terminal import shown as shown_params

_RECORD_S = 10.0
_TICK_S = 0.1
#: Ends after which a phase needs no more trials.
_DONE = ("exhausted", "converged", "timeout")


def run(found: Composed) -> int:
    """Run the study of a config, or its `phases` in order, and return the exit code.

    Raises:
        SpecError: The config is wrong, or the phase to build on is not there or not finished.
        TrialbusError: A service cannot be had.
    """
    console = Console()
    if not found.config.get("phases"):
        return launcher.run(launcher.plan(found, _study(found, console)), console)
    phases = _phases(found)
    for number, phase in enumerate(phases, 1):
        with _phase(phase, found.arguments) as composed_:
            code = _run_phase(composed_, f"phase {phase} ({number} of {len(phases)})", console)
        if code:
            return code
    return exit_codes.DONE


def plans(found: Composed) -> Generator[launcher.Plan]:
    """Check the study of a config, or each of its `phases`, and give what would run.

    A phase that builds on one that is not finished is shown without what that one will give.

    Raises:
        SpecError: The config is wrong.
    """
    if not found.config.get("phases"):
        yield launcher.plan(found, _study(found, Console(stderr=True)))
        return
    for phase in _phases(found):
        with _phase(phase, found.arguments) as composed_:
            yield launcher.plan(composed_)


def _run_phase(found: Composed, title: str, console: Console) -> int:
    url, spec = _url(found.config), sections.read_study(found.config)
    study = stored_study(url, spec.name)
    if study is not None and _finished(study) and _n_done(study) >= _wanted(study, spec):
        console.print(f"{title}: finished, {_summary(study)}", highlight=False, markup=False)
        return exit_codes.DONE
    console.rule(title, style="dim")
    code = launcher.run(launcher.plan(found, _study(found, console)), console)
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


def _study(composed_: Composed, console: Console) -> StudySpec:
    """Return the study of a config, with what an earlier phase gives it."""
    config = composed_.config
    spec = sections.read_study(config)
    phase = config.get("from_phase")
    if phase is None:
        return spec
    found = _kept(config, spec, str(phase)) or _best(composed_, str(phase))
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


def _best(found: Composed, phase: str) -> Inherited:
    own = [o for o in found.arguments if o.startswith(("--", "storage", "bus", "hydra."))]
    with _phase(phase, own) as earlier:
        name = sections.read_study(earlier.config).name
        chosen = earlier.arguments
    url = _url(found.config)
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


def _phases(composed_: Composed) -> list[str]:
    phases: Any = composed_.config.phases
    try:
        plain = OmegaConf.to_container(phases) if OmegaConf.is_config(phases) else phases
        found = msgspec.convert(plain, list[str])
    except msgspec.ValidationError as error:
        raise SpecError("phases", f"{error} (in {phases!r})") from None
    for override in composed_.arguments:
        if override.lstrip("+").startswith("study.name="):
            raise SpecError(
                "study.name", f"{override!r} would give every one of {found} the same study"
            )
    return found


@contextmanager
def _phase(phase: str, arguments: Sequence[str]) -> Generator[Composed]:
    """Compose the config of a phase in place of the one that the arguments name."""
    known = GlobalHydra.instance().config_loader().get_group_options("phase", ObjectType.CONFIG)
    if phase not in known:
        raise SpecError("from_phase", f"there is no phase {phase!r}{format_expected(phase, known)}")
    others = [o for o in arguments if o.lstrip("+~").partition("=")[0] not in ("phase", "phases")]
    with composed([*others, f"phase={phase}"]) as found:
        yield found


def _url(config: DictConfig) -> str:
    return sections.read_section(config, settings.StorageSettings).url
