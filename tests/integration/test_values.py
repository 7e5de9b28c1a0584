"""The command in `best_params.yaml` runs the program exactly as the trial ran it."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import optuna
import pytest

from support.values import TRICKY_TEXT
from trialbus import StudySpec
from trialbus.study.spec_loading import load_spec
from trialbus.study.values import is_same
from trialbus_services.config.settings import ParamsAs
from trialbus_services.optimizer.assignment import build_assignment
from trialbus_services.optimizer.attributes import ORIGIN, SPEC
from trialbus_services.optimizer.distributions import make_distribution
from trialbus_services.reporter.report import write_report
from trialbus_services.worker.params_check import check_params
from trialbus_services.worker.trainers import CommandTrainer

HYDRA = """
import json, hydra
from omegaconf import OmegaConf
@hydra.main(version_base=None, config_path="app", config_name="config")
def main(config):
    print(json.dumps(OmegaConf.to_container(config, resolve=True, throw_on_missing=True)))
main()
"""
FLAGS = "import json, sys; print(json.dumps(sys.argv[1:]))"
FILE = "import json, sys; print(json.dumps(json.load(open(sys.argv[-1]))))"
ENVIRONMENT = """
import json, os
print(json.dumps({k: v for k, v in os.environ.items() if k.startswith("TRIALBUS_PARAM_")}))
"""
PROGRAMS: dict[ParamsAs, str] = {
    "overrides": HYDRA,
    "flags": FLAGS,
    "file": FILE,
    "environment": ENVIRONMENT,
}

VALUES: list[Any] = [
    *TRICKY_TEXT,
    *(math.inf, -math.inf, math.nan, True, False, None, 0, 1, 1.0, 1e-7, 1e22, 2**63, 2**53 + 1),
    *([64, 64], ["a, b", None, math.inf], [], {}, {"deep": {"er": [1, "1"]}}),
]


def make_spec() -> StudySpec:
    study = {
        "name": "a study",
        "objective": {"metric": "m"},
        "n_trials": 1,
        "params": {
            "model": {"type": "categorical", "choices": ["small", "large"]},
            "model.lr": {"type": "float", "low": 1e-9, "high": 1, "log": True},
            "sizes": {"type": "categorical", "choices": {"few": [1, 2], "many": {"n": math.inf}}},
        },
        "fixed": {f"t{i}": value for i, value in enumerate(VALUES)},
        "base_config": {"limit": -math.inf},
    }
    return load_spec(study, sampler={"type": "RandomSampler"}, pruner=None)


def write_application(folder: Path) -> None:
    (folder / "app" / "model").mkdir(parents=True)
    for model in ("small", "large"):
        (folder / "app" / "model" / f"{model}.yaml").write_text(f"name: {model}\nlr: 0.1\n")
    names = ["limit", "sizes", *(f"t{i}" for i in range(len(VALUES)))]
    values = "".join(f"{name}: null\n" for name in names)
    (folder / "app" / "config.yaml").write_text(f"defaults: [model: small, _self_]\n{values}")


def run_in_shell(command: str) -> str:
    ran = subprocess.run(
        ["bash", "-c", command],
        cwd="/",
        env=os.environ | {"LC_ALL": "C.UTF-8"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.mark.parametrize("params_as", list(PROGRAMS))
async def test_the_command_of_best_params_gives_the_program_what_the_trial_gave_it(
    tmp_path: Path, params_as: ParamsAs
) -> None:
    write_application(tmp_path)
    (tmp_path / "train it.py").write_text(PROGRAMS[params_as])
    spec = make_spec()
    check_params(params_as, spec)
    stored = spec.encode_params(spec.fixed) | {"model": "large", "model.lr": 1e-5, "sizes": "many"}
    trainer = CommandTrainer(
        command=[sys.executable, "train it.py"],
        runs=tmp_path / "runs",
        params_as=params_as,
        cwd=str(tmp_path),
    )
    ran = await trainer.run(build_assignment(spec, 0, stored), {}, tmp_path / "log")
    assert ran.code == 0, ran.log_tail

    storage = optuna.storages.RDBStorage(f"sqlite:///{tmp_path / 'studies.db'}")
    study = optuna.create_study(study_name=spec.name, storage=storage, direction="maximize")
    study.set_user_attr(SPEC, msgspec.to_builtins(spec))
    settings = {"command": trainer.command, "params_as": params_as, "cwd": trainer.cwd}
    study.set_user_attr(ORIGIN, {"config": {"trainer": settings}})
    distributions = {name: make_distribution(param) for name, param in spec.space.items()}
    study.add_trial(optuna.create_trial(params=stored, distributions=distributions, values=[0.5]))
    paths = write_report(study, tmp_path / "reports")
    (best,) = [path for path in paths if path.name == "best_params.yaml"]
    command = best.read_text().splitlines()[2].removeprefix("# ")
    again = run_in_shell(command)
    expected, found = json.loads(ran.log_tail.splitlines()[-1]), json.loads(again)
    assert is_same(found, expected)
    if params_as == "overrides":
        assert found["model"] == {"name": "large", "lr": 1e-5}
        assert is_same(found["sizes"], {"n": math.inf})
        assert is_same([found[f"t{i}"] for i in range(len(VALUES))], VALUES)
        assert is_same(found["limit"], -math.inf)
    if params_as == "file":
        assert is_same([found[f"t{i}"] for i in range(len(VALUES))], VALUES)
    values = json.loads(best.with_name("best_params.json").read_text())
    assert is_same([values[f"t{i}"] for i in range(len(VALUES))], VALUES)
