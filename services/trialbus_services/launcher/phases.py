"""Phases: a sequence of studies, each with the best params of an earlier study as fixed values.

`from_phase: foundation` puts the best params of that phase's finished study into `study.fixed`.
The params are read from the Optuna storage once: a study that is resumed keeps its fixed values.
"""

from __future__ import annotations

import shlex
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec
import optuna
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.object_type import ObjectType
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from trialbus.errors import SpecError
from trialbus.study.spec import Inherited, StudySpec
from trialbus.study.validation import format_expected
from trialbus_services.config import sections, settings
from trialbus_services.config.composed_config import ComposedConfig
from trialbus_services.config.composing import compose_config
from trialbus_services.config.secrets import mask_secrets
from trialbus_services.launcher import launcher
from trialbus_services.optimizer.attributes import END, SPEC
from trialbus_services.optimizer.best_trials import find_best_trials
from trialbus_services.optimizer.recorded_spec import decode_recorded, read_spec
from trialbus_services.optimizer.storage import find_study
from trialbus_services.process import exit_codes
from trialbus_services.views.formats import format_params

#: Reasons of an end after which a phase is finished.
_FINAL_REASONS = ("exhausted", "converged", "timeout")


def run_phases(composed: ComposedConfig) -> int:
    """Run the study of a config, or the studies of the phases in order; return the exit code.

    Raises:
        SpecError: The config is wrong, or the phase of `from_phase` has not run or not finished.
        TrialbusError: A service cannot be started or reached.
    """
    console = Console()
    if not composed.config.get("phases"):
        plan = launcher.make_plan(composed, _read_study(composed, console))
        return launcher.run_study(plan, console)
    phases = _read_phases(composed)
    for number, phase in enumerate(phases, 1):
        with _compose_phase(phase, composed.arguments) as phase_config:
            code = _run_phase(phase_config, f"phase {phase} ({number} of {len(phases)})", console)
        if code:
            return code
    return exit_codes.DONE


def make_plans(composed: ComposedConfig) -> Generator[launcher.Plan]:
    """Check the study of a config, or the studies of the phases, and yield a plan of each study.

    A phase is planned without the params of an earlier phase.

    Raises:
        SpecError: The config is wrong.
    """
    if not composed.config.get("phases"):
        yield launcher.make_plan(composed, _read_study(composed, Console(stderr=True)))
        return
    for phase in _read_phases(composed):
        with _compose_phase(phase, composed.arguments) as phase_config:
            _print_merged_params(phase_config, Console(stderr=True))
            yield launcher.make_plan(phase_config)


def _run_phase(composed: ComposedConfig, title: str, console: Console) -> int:
    """Run the study of a phase unless the study is finished, and return the exit code."""
    url, spec = _read_url(composed.config), sections.read_study(composed.config)
    study = find_study(url, spec.name)
    if (
        study is not None
        and _is_finished(study)
        and _count_finished(study) >= _count_needed(study, spec)
    ):
        console.print(f"{title}: finished, {_summarize(study)}", highlight=False, markup=False)
        return exit_codes.DONE
    console.rule(title, style="dim")
    plan = launcher.make_plan(composed, _read_study(composed, console))
    return launcher.run_study(plan, console)


def _read_study(composed: ComposedConfig, console: Console) -> StudySpec:
    """Return the study of a config, with the params of the phase of `from_phase` fixed."""
    config = composed.config
    spec = sections.read_study(config)
    _print_merged_params(composed, console)
    phase = config.get("from_phase")
    if phase is None:
        return spec
    inherited = _read_inherited(config, spec, str(phase)) or _inherit_params(composed, str(phase))
    params = inherited.params
    fixed = {k: v for k, v in params.items() if k not in {*spec.params, *spec.fixed}}
    searched = {k: v for k, v in params.items() if k in spec.params}
    lines = [f"from trial {inherited.trial} of {inherited.study!r}: {format_params(fixed)}"]
    if searched:
        lines.append(f"searched again: {', '.join(searched)} ({format_params(searched)} there)")
    for line in lines:
        console.print(line, style="dim", highlight=False, markup=False, soft_wrap=True)
    return msgspec.structs.replace(spec, fixed={**fixed, **spec.fixed}, inherited=inherited)


def _print_merged_params(composed: ComposedConfig, console: Console) -> None:
    text = _describe_merged_params(composed)
    if text is not None:
        console.print(text, style="yellow", highlight=False, markup=False, soft_wrap=True)


def _describe_merged_params(composed: ComposedConfig) -> str | None:
    """Return which params a phase searches only because its study has them; None without such."""
    choices = HydraConfig.get().runtime.choices
    phase, study = choices.get("phase"), choices.get("study")
    if phase is None:
        return None
    with compose_config(_drop_phase(composed.arguments)) as plain:
        if HydraConfig.get().runtime.choices.get("study") != study:
            return None  # the phase chooses its study itself
        inherited = _list_params(plain.config)
    own = [name for name in _list_params(composed.config) if name not in inherited]
    if not own or not inherited:
        return None
    return (
        f"phase {phase!r} searches {', '.join(own)} of its own, and {', '.join(inherited)} of "
        f"study={study}, too; if it is to search its own only, let it choose a study without them: "
        "`override /study: <name>` in its defaults"
    )


def _list_params(config: DictConfig) -> list[str]:
    is_missing = OmegaConf.is_missing(config.study, "params")
    return [] if is_missing else [str(name) for name in config.study.params or ()]


def _drop_phase(arguments: Sequence[str]) -> list[str]:
    """Return the arguments without the selection of a phase or phases."""
    names = ("phase", "phases")
    return [o for o in arguments if o.lstrip("+~").partition("=")[0] not in names]


def _read_inherited(config: DictConfig, spec: StudySpec, phase: str) -> Inherited | None:
    """Return the params that a study inherited when the study began; None before that."""
    study = find_study(_read_url(config), spec.name)
    data = study and study.user_attrs.get(SPEC, {}).get("inherited")
    inherited = msgspec.convert(data, Inherited) if data else None
    return inherited if inherited and inherited.phase == phase else None


def _inherit_params(composed: ComposedConfig, phase: str) -> Inherited:
    """Return the best params of an earlier phase.

    Raises:
        SpecError: The phase has not run to its end, or has no best trial.
    """
    shared = ("--", "storage", "bus", "hydra.")
    arguments = [argument for argument in composed.arguments if argument.startswith(shared)]
    with _compose_phase(phase, arguments) as earlier:
        name = sections.read_study(earlier.config).name
        arguments = earlier.arguments
    url = _read_url(composed.config)
    advice = f"run it first: trialbus study {shlex.join(mask_secrets(arguments))}"
    study = find_study(url, name)
    if study is None:
        raise SpecError(
            "from_phase", f"{phase!r} has no study {name!r} in {mask_secrets(url)!r}; {advice}"
        )
    if not _is_finished(study):
        raise SpecError(
            "from_phase",
            f"{phase!r} is not finished: study {name!r} in {mask_secrets(url)!r} has "
            f"{_count_finished(study)} trials done, "
            f"{'a' if find_best_trials(study) else 'no'} best trial and "
            f"{study.user_attrs.get(END) or 'no end'}; {advice}",
        )
    if len(study.directions) > 1:
        raise SpecError("from_phase", f"{phase!r} has several objectives, and so no best trial")
    [best] = find_best_trials(study)
    params = decode_recorded(study.user_attrs, best.params)
    return Inherited(phase=phase, study=name, trial=best.number, values=best.values, params=params)


def _is_finished(study: optuna.Study) -> bool:
    return study.user_attrs.get(END) in _FINAL_REASONS and bool(find_best_trials(study))


def _count_needed(study: optuna.Study, spec: StudySpec) -> int:
    """Return the number of trials that a finished study needs to have.

    A study that was exhausted goes on when its config has more trials or another search space; one
    that converged or timed out does not.
    """
    if study.user_attrs.get(END) != "exhausted":
        return 0
    recorded = read_spec(study.user_attrs)
    if recorded is not None and recorded.space == spec.space and recorded.n_trials >= spec.n_trials:
        return 0  # a finite space may have been exhausted with fewer trials
    return spec.n_trials


def _count_finished(study: optuna.Study) -> int:
    return sum(trial.state.is_finished() for trial in study.get_trials(deepcopy=False))


def _summarize(study: optuna.Study) -> str:
    trials = f"{_count_finished(study)} trials"
    if len(study.directions) > 1:
        return trials
    [best] = find_best_trials(study)
    return f"{trials}, best {best.values[0]:.5g} in trial {best.number}"


def _read_phases(composed: ComposedConfig) -> list[str]:
    """Return the names of the phases in a config."""
    phases: Any = composed.config.phases
    try:
        plain = OmegaConf.to_container(phases) if OmegaConf.is_config(phases) else phases
        names = msgspec.convert(plain, list[str])
    except msgspec.ValidationError as error:
        raise SpecError("phases", f"{error} (in {phases!r})") from None
    for override in composed.arguments:
        if override.lstrip("+").startswith("study.name="):
            raise SpecError(
                "study.name", f"{override!r} would give every one of {names} the same study"
            )
    return names


@contextmanager
def _compose_phase(phase: str, arguments: Sequence[str]) -> Generator[ComposedConfig]:
    """Compose the config of a phase, with all arguments except the selection of phases."""
    phases = GlobalHydra.instance().config_loader().get_group_options("phase", ObjectType.CONFIG)
    if phase not in phases:
        raise SpecError(
            "from_phase", f"there is no phase {phase!r}{format_expected(phase, phases)}"
        )
    with compose_config([*_drop_phase(arguments), f"phase={phase}"]) as composed:
        yield composed


def _read_url(config: DictConfig) -> str:
    return sections.read_section(config, settings.StorageSettings).url
