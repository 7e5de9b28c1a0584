"""The plugin of Hydra: found quickly, without an import of trialbus, beside other plugins."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hydra import version
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from packaging.version import Version

from hydra_plugins.trialbus_sweeper._config import register
from hydra_plugins.trialbus_sweeper.sweeper import TrialbusSweeper
from trialbus_services.config.composing import compose_config

_DISCOVER = """
import sys
from hydra.core.plugins import Plugins
stats = Plugins.instance().stats
times = stats.modules_import_time.items()
seconds = sum(s for module, s in times if module.startswith("hydra_plugins.trialbus"))
print(seconds, *(m for m in sys.modules if m.split(".")[0] in BANNED))
"""
BANNED = {"trialbus", "trialbus_services", "optuna", "msgspec", "zmq", "numpy", "rich"}


def test_hydra_finds_the_sweeper() -> None:
    found = Plugins.instance().discover(Sweeper)
    assert TrialbusSweeper.__name__ in [plugin.__name__ for plugin in found]


def test_the_search_for_plugins_imports_nothing_but_hydra_and_is_quick() -> None:
    program = f"BANNED = {BANNED!r}\n{_DISCOVER}"
    seconds: list[float] = []
    for _ in range(3):
        output = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True
        ).stdout.split()
        assert output[1:] == []
        seconds.append(float(output[0]))
    assert min(seconds) < 0.02


def test_an_application_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trialbus_services.sweeper.sweep", None)
    with pytest.raises(Exception, match=r'pip install "trialbus\[services\]"'):
        TrialbusSweeper().sweep([])


def test_a_sampler_of_another_plugin_stays() -> None:
    store = ConfigStore.instance()
    before = store.repo["hydra"]["sweeper"]["sampler"]["tpe.yaml"]
    store.store(group="hydra/sweeper/sampler", name="tpe", node={"theirs": 1}, provider="theirs")
    theirs = store.repo["hydra"]["sweeper"]["sampler"]["tpe.yaml"]
    try:
        register()
        assert store.repo["hydra"]["sweeper"]["sampler"]["tpe.yaml"] is theirs
    finally:
        store.repo["hydra"]["sweeper"]["sampler"]["tpe.yaml"] = before


def test_composing_a_config_of_trialbus_leaves_an_application_of_hydra_as_it_was() -> None:
    store, base = ConfigStore.instance(), version.VersionBase.instance()
    before = base.version_base
    store.store(name="schema", node={"theirs": 1})
    theirs = store.repo["schema.yaml"]
    version.setbase("1.2")
    try:
        with compose_config([]):
            assert store.repo["schema.yaml"] is not theirs
        assert store.repo["schema.yaml"] is theirs
        assert version.getbase() == Version("1.2")
    finally:
        base.version_base = before
        del store.repo["schema.yaml"]
