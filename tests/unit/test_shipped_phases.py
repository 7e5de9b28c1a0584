"""Every shipped phase can start, as it is and with every shipped sampler and pruner."""

from __future__ import annotations

from itertools import zip_longest
from pathlib import Path

import optuna
import pytest

from trialbus_services.cli import main as cli
from trialbus_services.config import sections
from trialbus_services.config.composing import compose_config
from trialbus_services.launcher.launcher import check_spec

TREE = Path(__file__).parents[2] / "config" / "trialbus_config"


def list_choices(group: str) -> list[str]:
    """Return the names of the files of a group."""
    return sorted(path.stem for path in (TREE / group).glob("*.yaml"))


PHASES = [phase for phase in list_choices("phase") if phase != "all"]
#: Every sampler and every pruner at least once: one does not depend on the other.
PAIRS = [
    (sampler or "tpe", pruner or "none")
    for sampler, pruner in zip_longest(list_choices("sampler"), list_choices("pruner"))
]
#: Arguments that a class needs from the user.
NEEDED = {
    "threshold": ["pruner.lower=0"],
    "partial_fixed": ["sampler.fixed_params={}"],
    "grid": ["~study.params", "+study.params={x:'choice(1,2)'}"],
}


@pytest.fixture(autouse=True)
def work_in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("phase", PHASES)
def test_every_phase_passes_the_dry_run(phase: str, capsys: pytest.CaptureFixture[str]) -> None:
    # Without the study of an earlier phase, which has not run here.
    code = cli.main(["study", f"phase={phase}", "from_phase=null", "--dry-run"])
    assert code == 0, capsys.readouterr().err


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize(("sampler", "pruner"), PAIRS)
def test_every_phase_can_be_run_with_every_sampler_and_pruner(
    phase: str, sampler: str, pruner: str
) -> None:
    if sampler == "gp":
        pytest.importorskip("torch")
    needed = [*NEEDED.get(sampler, ()), *NEEDED.get(pruner, ())]
    choices = [f"phase={phase}", f"sampler={sampler}", f"pruner={pruner}"]
    with compose_config([*choices, *needed]) as composed:
        check_spec(sections.read_study(composed.config))


def test_a_phase_changes_arguments_of_the_classes_that_it_chooses() -> None:
    with compose_config(["phase=quick"]) as composed:
        spec = sections.read_study(composed.config)
    assert (spec.sampler.type, spec.sampler.args["n_startup_trials"]) == ("TPESampler", 15)
    assert spec.pruner is not None
    assert spec.pruner.type == optuna.pruners.SuccessiveHalvingPruner.__name__
    assert spec.pruner.args["min_resource"] == 3
