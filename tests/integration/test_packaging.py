"""The sdist, the wheel built from the sdist, and the wheel's requirements."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(120)

ROOT = Path(__file__).parents[2]
# Where each top-level name of the wheel comes from.
SOURCES = {
    "trialbus": ROOT / "bus" / "trialbus",
    "trialbus_services": ROOT / "services" / "trialbus_services",
    "hydra_plugins": ROOT / "services" / "hydra_plugins",
    "trialbus_config": ROOT / "config" / "trialbus_config",
    "trialbus_services/examples": ROOT / "examples",
}
# A study in a user's own tree.
STUDY = """\
name: mine
n_trials: 2
objective: {metric: loss, direction: minimize}
params: {x: "interval(0, 1)"}
"""
# What a trainer must never load.
HEAVY = ("hydra", "numpy", "omegaconf", "optuna", "plotly", "sqlalchemy", "torch")


def run(*command: str | Path, cwd: Path, **env: str) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={k: v for k, v in os.environ.items() if not k.startswith("TRIALBUS_")} | env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, (
        f"{command} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
    )
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel, built from the sdist."""
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, ROOT, cwd=out)
    (found,) = out.glob("*.whl")
    assert list(out.glob("*.tar.gz"))
    return found


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A user's folder with the names of the checkout's folders."""
    folder = tmp_path / "project"
    for name in ("services", "config", "examples"):
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text("")
    (folder / "bus.py").write_text("")
    return folder


def test_the_wheel_holds_every_file_of_the_packages_and_no_other(wheel: Path) -> None:
    names = {n for n in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in n}
    expected = {
        f"{top}/{file.relative_to(folder)}"
        for top, folder in SOURCES.items()
        for file in folder.rglob("*")
        if file.is_file() and not {"__pycache__", "node_modules"} & set(file.parts)
    }
    assert names == expected
    assert {name.split("/")[0] for name in names} == {
        "trialbus",
        "trialbus_services",
        "trialbus_config",
        "hydra_plugins",
    }


def test_from_the_wheel_the_config_tree_composes_and_the_example_is_found(
    wheel: Path, elsewhere: Path, tmp_path: Path
) -> None:
    installed = tmp_path / "installed"
    zipfile.ZipFile(wheel).extractall(installed)
    printed = run(
        *(sys.executable, "-m", "trialbus_services"),
        *("study", "study=digits", "--cfg", "job", "--resolve"),
        cwd=elsewhere,
        PYTHONPATH=str(installed),
    )
    example = re.search(r"^ *- (.*digits\.py)$", printed, re.MULTILINE)
    assert example, printed
    assert Path(example[1]) == installed / "trialbus_services" / "examples" / "digits.py"
    assert Path(example[1]).is_file()


def test_from_the_wheel_a_user_s_own_tree_is_found_beside_ours(
    wheel: Path, elsewhere: Path, tmp_path: Path
) -> None:
    installed = tmp_path / "installed"
    zipfile.ZipFile(wheel).extractall(installed)
    for name, text in {
        "conf/study/mine.yaml": STUDY,
        "conf/mine.yaml": "defaults: [config, {override study: mine}, _self_]\n",
        "lab/sampler/ours.yaml": "type: RandomSampler\n",
    }.items():
        (elsewhere / name).parent.mkdir(parents=True, exist_ok=True)
        (elsewhere / name).write_text(text)
    for arguments in (
        ["--config-dir=conf", "--config-name=mine", f"hydra.searchpath=[file://{elsewhere}/lab]"],
        ["study=mine", f"hydra.searchpath=[{elsewhere}/conf,{elsewhere}/lab]"],
    ):
        printed = run(
            *(sys.executable, "-m", "trialbus_services", "study", "--dry-run", "-v", *arguments),
            *("sampler=ours", "trainer=command", "trainer.command=[python,-c,pass]"),
            cwd=elsewhere,
            PYTHONPATH=str(installed),
        )
        assert "name: mine" in printed
        assert "type: RandomSampler" in printed
        assert "command: python -c pass" in printed
    assert not (elsewhere / ".trialbus").exists()


def test_a_trainer_needs_only_the_core_dependencies(
    wheel: Path, elsewhere: Path, tmp_path: Path
) -> None:
    python = install_core(wheel, tmp_path / "venv")
    program = f"""
import importlib.util, sys
import trialbus
with trialbus.attach(defaults={{"lr": 0.1}}, budget=2) as trial:
    for step in range(trial.budget):
        trial.report(step, {{"loss": trial.params["lr"]}})
print([name for name in {HEAVY!r} if importlib.util.find_spec(name) or name in sys.modules])
print(trialbus.__file__)
"""
    heavy, file = run(python, "-W", "error", "-c", program, cwd=elsewhere).splitlines()
    assert heavy == "[]"
    assert Path(file).is_relative_to(tmp_path / "venv")


def install_core(wheel: Path, venv: Path) -> Path:
    """Install the wheel in an empty environment, with the declared dependencies.

    They are copied from this environment, so that the test needs no network.
    """
    run(sys.executable, "-m", "venv", "--without-pip", venv, cwd=venv.parent)
    python = venv / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python)
    run(*pip, "install", "--no-index", "--no-deps", wheel, cwd=venv.parent)
    site = Path(
        run(
            python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=venv
        ).strip()
    )
    for requirement in metadata.requires("trialbus") or []:
        if "extra ==" not in requirement:
            copy_distribution(re.split(r"[^\w.-]", requirement)[0], site)
    run(*pip, "check", cwd=venv.parent)
    return python


def copy_distribution(name: str, site: Path) -> None:
    here = Path(sysconfig.get_path("purelib"))
    for file in metadata.files(name) or []:
        source = Path(str(file.locate()))
        if source.is_file() and source.is_relative_to(here):
            target = site / source.relative_to(here)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
