"""Optuna's own test suite for storages, run against the write-behind storage."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.testing.pytest_storages import StorageTestCase

from trialbus_services.optimizer.storage import open_storage
from trialbus_services.optimizer.storage_writer.write_behind import WriteBehind


def list_trials(storage: BaseStorage, name: str) -> list[dict[str, Any]]:
    """Return the trials of a study without ids and times, each number as the text of a float."""
    return [
        {
            "number": trial.number,
            "state": trial.state,
            "values": [repr(float(value)) for value in trial.values or ()],
            "params": {
                name: (distribution, repr(float(distribution.to_internal_repr(trial.params[name]))))
                for name, distribution in trial.distributions.items()
            },
            "intermediate_values": {
                step: repr(float(value)) for step, value in trial.intermediate_values.items()
            },
            "user_attrs": repr(sorted(trial.user_attrs.items())),
            "system_attrs": repr(sorted(trial.system_attrs.items())),
        }
        for trial in storage.get_all_trials(storage.get_study_id_from_name(name))
    ]


class TestWriteBehindStorage(StorageTestCase):
    """Every case of `StorageTestCase` for every type of storage, with a comparison at the end.

    Two cases are replaced by cases of the documented behaviour:

    - `test_get_all_trials_not_modified`: without a copy, the curve of a running trial grows. A
      copy of the curve for each report would make each report slower than the last.
    - `test_pickle_storage`: a write-behind storage has a thread and is the only writer of its
      studies. A pickled copy would be a second one.
    """

    @pytest.fixture(params=["memory", "sqlite", "journal"])
    def storage(self, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BaseStorage]:
        url = {
            "memory": "memory://",
            "sqlite": f"sqlite:///{tmp_path}/studies.db",
            "journal": f"journal:///{tmp_path}/studies.log",
        }[request.param]
        backend = open_storage(url)
        storage = WriteBehind(backend)
        yield storage
        names = [study.study_name for study in storage.get_all_studies()]
        storage.close()
        assert storage.n_pending == 0
        assert {study.study_name for study in backend.get_all_studies()} == set(names)
        for name in names:
            assert list_trials(backend, name) == list_trials(storage, name)

    # The curve of a running trial grows; see the class.
    def test_get_all_trials_not_modified(self, storage: BaseStorage) -> None:
        study_id = storage.create_new_study([StudyDirection.MINIMIZE])
        trial_id = storage.create_new_trial(study_id)
        live = storage.get_all_trials(study_id, deepcopy=False)
        before = copy.deepcopy(live)
        storage.set_trial_user_attr(trial_id, "user", 0)
        storage.set_trial_system_attr(trial_id, "system", 0)
        assert live == before
        storage.set_trial_intermediate_value(trial_id, 0, 0.5)
        assert storage.get_all_trials(study_id)[0].intermediate_values == {0: 0.5}
        assert before[0].intermediate_values == {}

    # A copy would be a second writer of the same studies; see the class.
    def test_pickle_storage(self, storage: BaseStorage) -> None:
        with pytest.raises(TypeError, match="pickle"):
            pickle.dumps(storage)
