"""The optimizer imports classes that a study names from the modules that its operator allows."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import optuna
import pytest

import trialbus
from support.client import SPEC
from trialbus.study.spec import Component
from trialbus_services.optimizer import allowed_modules
from trialbus_services.optimizer.allowed_modules import AllowedModules, find_class_paths
from trialbus_services.optimizer.registry import build_pruner, build_sampler


@pytest.fixture(autouse=True)
def evil(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module in the working folder that leaves a mark when it is imported."""
    (tmp_path / "evil.py").write_text(
        "import pathlib, optuna\n"
        "pathlib.Path('imported').touch()\n"
        "class Boom(optuna.samplers.RandomSampler): pass\n"
        "class Shears(optuna.pruners.NopPruner): pass\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "evil", raising=False)
    return tmp_path / "imported"


def spec(sampler: Component) -> trialbus.StudySpec:
    return trialbus.StudySpec(
        name="s", params=SPEC.params, objectives=SPEC.objectives, n_trials=1, sampler=sampler
    )


@pytest.mark.parametrize(
    ("component", "key", "path"),
    [
        (Component(type="evil.Boom"), "sampler.type", "evil.Boom"),
        (Component(type="evil:Boom"), "sampler.type", "evil:Boom"),
        (
            Component(type="GPSampler", args={"independent_sampler": {"type": "evil.Boom"}}),
            "sampler.independent_sampler.type",
            "evil.Boom",
        ),
        (
            Component(type="NSGAIISampler", args={"crossover": {"_target_": "evil.Boom"}}),
            "sampler.crossover.type",
            "evil.Boom",
        ),
    ],
    ids=["a sampler", "with a colon", "a sampler inside a sampler", "a part of a sampler"],
)
def test_a_class_that_nobody_allowed_is_refused_before_its_module_is_imported(
    component: Component, key: str, path: str, evil: Path
) -> None:
    with pytest.raises(trialbus.SpecError) as refusal:
        build_sampler(spec(component), allowed=AllowedModules())
    assert str(refusal.value) == (
        f"{key}: {path!r} is of a module that this optimizer may not import; whoever runs the "
        "optimizer can allow it with optimizer.allowed_modules=[evil]"
    )
    assert not evil.exists()


def test_a_pruner_is_bound_by_the_same_rule(evil: Path) -> None:
    with pytest.raises(trialbus.SpecError, match=r"pruner.type: 'evil.Shears' .*may not import"):
        build_pruner(Component(type="evil.Shears"), allowed=AllowedModules())
    assert not evil.exists()
    allowed = AllowedModules(["evil"])
    assert type(build_pruner(Component(type="evil.Shears"), allowed=allowed)).__name__ == "Shears"


@pytest.mark.parametrize("name", ["evil", "evil.Boom", "evil:Boom"])
def test_a_module_or_a_single_class_is_allowed_by_name(name: str) -> None:
    sampler = build_sampler(spec(Component(type="evil.Boom")), allowed=AllowedModules([name]))
    assert type(sampler).__name__ == "Boom"


def test_the_user_s_own_process_may_import_every_module() -> None:
    assert type(build_sampler(spec(Component(type="evil.Boom")))).__name__ == "Boom"


@pytest.mark.parametrize("path", ["evil.Shears", "evil_twin.Boom", "evi.Boom", "evil"])
def test_a_name_does_not_allow_what_begins_alike(path: str) -> None:
    with pytest.raises(trialbus.SpecError, match="may not import"):
        AllowedModules(["evil.Boom"]).check("sampler.type", path)


def test_optuna_s_classes_may_be_named_by_their_whole_path() -> None:
    component = Component(type="optuna.samplers.RandomSampler")
    sampler = build_sampler(spec(component), allowed=AllowedModules())
    assert isinstance(sampler, optuna.samplers.RandomSampler)


def test_an_installed_plugin_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    def list_entry_points(*, group: str) -> EntryPoints:
        entry = EntryPoint("boom", "evil:Boom", group)
        return EntryPoints([entry] if group == "trialbus.samplers" else [])

    monkeypatch.setattr(allowed_modules, "entry_points", list_entry_points)
    allowed = AllowedModules()
    assert (
        type(build_sampler(spec(Component(type="evil.Boom")), allowed=allowed)).__name__ == "Boom"
    )
    with pytest.raises(trialbus.SpecError, match="may not import"):
        allowed.check("sampler.type", "other.Boom")


@pytest.mark.parametrize("name", ["", "*", "my package", "../evil", "evil."])
def test_a_name_that_no_module_can_have_is_refused(name: str) -> None:
    with pytest.raises(trialbus.SpecError, match=r"^optimizer.allowed_modules: "):
        AllowedModules([name])


def test_the_classes_of_a_study_are_found_inside_of_each_other() -> None:
    sampler = Component(
        type="my_package:Sampler",
        args={"inner": {"type": "TPESampler", "deep": {"_target_": "other.Deep"}}, "n": 3},
    )
    assert find_class_paths(spec(sampler)) == ["my_package.Sampler", "other.Deep"]
