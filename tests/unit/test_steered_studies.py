"""Whatever people and other programs do to a study, log, database and view say what happened."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from optuna.storages import InMemoryStorage

from support.steered_history import SteeredHistory
from trialbus_services.optimizer.storage import open_storage


@pytest.fixture(autouse=True)
def quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)


@pytest.mark.parametrize("has_others", [False, True], ids=["killed", "beside-others"])
def test_a_study_that_is_steered_at_random_ends_and_tells_what_happened(has_others: bool) -> None:
    for seed in range(30):
        history = SteeredHistory(InMemoryStorage(), seed, has_others=has_others)
        history.run()
        assert history.find_violations() == [], f"seed {seed}"


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_a_study_in_tables_that_others_write_to_at_random_ends_and_tells_what_happened(
    seed: int, tmp_path: Path
) -> None:
    storage = open_storage(f"sqlite:///{tmp_path}/studies.db")
    history = SteeredHistory(storage, seed, has_others=True)
    history.run()
    assert history.find_violations() == []
