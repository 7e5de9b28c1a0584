"""Params arrival: whether the script of a command reads the params of a trial at all."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from trialbus.study.spec import StudySpec
from trialbus_services.config.settings import TrainerSettings
from trialbus_services.worker.placeholders import list_placeholders

#: Placeholders that stand for no param.
_OTHERS = {"study", "trial", "attempt", "seed", "budget", "run_dir"}
_HYDRA = re.compile(r"^[^#\n]*\bhydra\.main\(|^from hydra import .*\bmain\b", re.MULTILINE)


def find_arrival_problem(trainer: TrainerSettings, spec: StudySpec) -> str | None:
    """Return why no param would reach the script of a command; None without a sign of that.

    Only a script whose source can be read is judged, with the modules in its folder that the
    script imports.

    Args:
        trainer: Program of the study, with its way of taking params.
        spec: Specification of the study.
    """
    script = next((Path(word) for word in trainer.argv if word.endswith(".py")), None)
    names = {name for word in trainer.argv for name in list_placeholders(word)}
    is_given = trainer.params_as != "environment" or not spec.params or names - _OTHERS
    if script is None or is_given:
        return None
    try:
        sources = list(_read_sources(script, script.parent, set()))
    except (OSError, ValueError, SyntaxError):
        return None
    if _HYDRA.search(sources[0]):
        return (
            f"{script} is an application of Hydra, and its config gets no params: each trial would "
            "run with the same values (expected trainer=hydra, or trainer.params_as=overrides)"
        )
    if any("trialbus" in source.lower() for source in sources):
        return None
    return (
        f"the params of a trial are variables ($TRIALBUS_PARAM_...), and {script} shows neither "
        "them nor trialbus.attach(): each trial may run with the same values (expected "
        "trainer.params_as=flags, overrides or file, or names such as {lr} in trainer.command)"
    )


def _read_sources(script: Path, root: Path, done: set[Path]) -> Iterator[str]:
    """Yield the text of a script, and those of modules in the folder `root` that it imports."""
    done.add(script)
    text = script.read_text(encoding="utf-8")
    yield text
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Import(names=names):
                modules = [alias.name for alias in names]
            case ast.ImportFrom(module=str(module), names=names):
                modules = [module, *(f"{module}.{alias.name}" for alias in names)]
            case _:
                continue
        for module in modules:
            parts = module.split(".")
            for base in (root.joinpath(*parts), script.parent.joinpath(*parts)):
                for path in (base.with_suffix(".py"), base / "__init__.py"):
                    if path.is_file() and path not in done:
                        yield from _read_sources(path, root, done)
