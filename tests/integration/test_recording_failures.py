"""Failures of a storage lose no confirmed change and delay no trial."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy
import sqlalchemy.event
import sqlalchemy.exc
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import TrialState

from support.databases import Databases
from support.random_study import DISTRIBUTIONS, list_trials, open_study, play_actions
from support.until import until
from trialbus_services.optimizer.storage_writer.write_behind import WriteBehind

MINIMIZE = [StudyDirection.MINIMIZE]
# Only flush() writes, so that the tests decide when.
NEVER_S = 1e6
LOGGER = "trialbus_services"

_CHILD = """
import sys
from optuna.study import StudyDirection, load_study
from optuna.samplers import RandomSampler
from support.random_study import DISTRIBUTIONS
from trialbus_services.optimizer.storage_writer.write_behind import WriteBehind
from trialbus_services.optimizer.storage import open_storage

behind = WriteBehind(open_storage(sys.argv[1]), interval_s=0.001)
behind.load_or_create_study("s", [StudyDirection.MINIMIZE])
study = load_study(study_name="s", storage=behind, sampler=RandomSampler(seed=0))
marks = []
while True:
    with behind.atomic():
        trial = study.ask(DISTRIBUTIONS)
    for step in range(20):
        trial.report(step, step)
        marks.append((behind.mark(), trial.number, step))
    if trial.number % 2:
        study.tell(trial, 1.0)
    if len(marks) > 100:
        behind.flush()
    while marks and behind.is_recorded(marks[0][0]):
        print(*marks.pop(0)[1:], flush=True)
"""


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.name.startswith(LOGGER)]


def engine_of(storage: Any) -> sqlalchemy.Engine:
    rdb = getattr(storage, "_backend", storage)
    assert isinstance(rdb, RDBStorage)
    return rdb.engine


@pytest.mark.parametrize("lock", ["BEGIN EXCLUSIVE", "BEGIN; SELECT * FROM trials"])
def test_a_locked_database_delays_nobody_and_loses_nothing(
    lock: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    backend = RDBStorage(url, engine_kwargs={"connect_args": {"timeout": 0.05}})
    behind = WriteBehind(backend, interval_s=0.01)
    study_id = behind.load_or_create_study("s", MINIMIZE)
    engine = sqlalchemy.create_engine(url)
    with engine.connect() as other:
        # Beside a reader, SQLite without a write-ahead log fails in COMMIT only.
        for statement in lock.split("; "):
            other.exec_driver_sql(statement)
        trial_id = behind.create_new_trial(study_id)
        mark = behind.mark()
        # A call that waits for the database would never return.
        for step in range(1000):
            behind.set_trial_intermediate_value(trial_id, step, 0.5)
        until(lambda: behind.failing_since, describe="the failure")
        assert "locked" in str(behind.last_error)
        for step in range(2000):
            behind.set_trial_intermediate_value(trial_id, step, 1.5)
        assert not behind.flush(timeout_s=0.1)
        assert not behind.is_recorded(mark)
        # Rows of the trial and its values, each counted once.
        assert behind.n_pending == 2001
        other.rollback()
    engine.dispose()
    assert behind.flush(timeout_s=30)
    assert behind.is_recorded(mark)
    assert behind.failing_since is None
    assert behind.n_pending == 0
    assert list_trials(behind, "s") == list_trials(backend, "s")
    first, last = messages(caplog)
    assert "the storage cannot be written, retrying" in first
    assert "the storage is written again after" in last
    behind.close()
    backend.remove_session()
    backend.engine.dispose()


@pytest.mark.parametrize("kind", ["sqlite"])
def test_closing_with_a_dead_database_ends_and_logs_the_lost_rows(
    databases: Databases, caplog: pytest.LogCaptureFixture
) -> None:
    backend = databases.open(databases.new())
    behind = WriteBehind(backend, interval_s=0.01)
    behind.create_new_trial(behind.load_or_create_study("s", MINIMIZE))
    assert behind.flush()
    with engine_of(backend).begin() as connection:
        connection.exec_driver_sql("DROP TABLE trial_intermediate_values")
    behind.set_trial_intermediate_value(0, 0, 1.0)
    behind.close(timeout_s=0.2)
    assert "1 rows are not recorded" in messages(caplog)[-1]
    assert "trial_intermediate_values" in messages(caplog)[-1]


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
@pytest.mark.parametrize("kept", [True, False], ids=["committed", "rolled back"])
def test_a_commit_without_an_answer_is_not_repeated(databases: Databases, kept: bool) -> None:
    backend = databases.open(databases.new())
    engine = engine_of(backend)
    behind = WriteBehind(backend, interval_s=0.01)
    study = open_study(behind, "s", ["minimize"], 0)
    lost: list[bool] = []

    @sqlalchemy.event.listens_for(engine, "commit")
    def lose(connection: sqlalchemy.Connection) -> None:  # pyright: ignore[reportUnusedFunction]
        if not lost:
            lost.append(True)
            if kept:
                connection.connection.commit()
            raise sqlalchemy.exc.OperationalError("COMMIT", None, Exception("server gone"))

    with behind.atomic():
        for _ in range(3):
            study.ask(DISTRIBUTIONS)
    assert behind.flush(30)
    with behind.atomic():
        study.tell(0, 1.0)
        study.ask(DISTRIBUTIONS)
    assert behind.flush(30)
    assert lost
    assert list_trials(behind, "s") == list_trials(backend, "s")
    behind.close()


@pytest.mark.parametrize("kind", ["sqlite", "postgresql", "mysql", "journal"])
def test_a_refused_row_delays_no_other_row(
    databases: Databases, caplog: pytest.LogCaptureFixture
) -> None:
    backend = databases.open(databases.new())
    behind = WriteBehind(backend, interval_s=NEVER_S)
    bad = behind.create_new_trial(behind.load_or_create_study("bad", MINIMIZE))
    play_actions(open_study(behind, "good", ["minimize"], 0), 0)
    behind.set_trial_intermediate_value(bad, 1, 1.0)
    huge = 2**70
    if databases.kind == "journal":
        # A journal accepts all other rows.
        behind.flush()
        behind.set_trial_state_values(bad, TrialState.COMPLETE, [1.0])
        behind.flush()
        behind.amend_trial_user_attr(bad, "late", 1)
    else:
        behind.set_trial_intermediate_value(bad, huge, 1.0)
    behind.set_study_user_attr(behind.load_or_create_study("bad", []), "key", 1)
    assert behind.flush(30)
    assert list_trials(backend, "good") == list_trials(behind, "good")
    [trial] = backend.get_all_trials(backend.get_study_id_from_name("bad"))
    assert trial.intermediate_values == {1: 1.0}
    assert backend.get_study_user_attrs(backend.get_study_id_from_name("bad")) == {"key": 1}
    [message] = messages(caplog)
    what = "attribute 'late'" if databases.kind == "journal" else f"the value of step {huge}"
    assert f"trial 0 of 'bad': the storage refuses {what}" in message
    behind.close()


@pytest.mark.parametrize("kind", ["sqlite", "postgresql", "mysql", "journal"])
def test_a_trial_of_another_program_is_noticed(
    databases: Databases, caplog: pytest.LogCaptureFixture
) -> None:
    url = databases.new()
    backend = databases.open(url)
    behind = WriteBehind(backend, interval_s=NEVER_S)
    study, other = (open_study(behind, name, ["minimize"], 0) for name in ("s", "other"))
    study.ask(DISTRIBUTIONS)
    behind.flush()
    optuna.load_study(study_name="s", storage=databases.open(url)).ask()
    study_id = behind.get_study_id_from_name("s")
    new = [study.ask(DISTRIBUTIONS)._trial_id for _ in range(2)]  # pyright: ignore[reportPrivateUsage]
    other.ask(DISTRIBUTIONS)
    assert not behind.has_conflicts(study_id)
    assert behind.flush(30)
    message = "another program has added trial 1 in the study 's'"
    assert message in messages(caplog)[0]
    assert behind.has_conflicts(study_id)
    assert [behind.is_taken(trial_id) for trial_id in (0, *new)] == [False, True, True]
    behind.release(study_id)
    reopened = list_trials(behind, "s")
    assert len(reopened) == 4
    assert reopened == list_trials(backend, "s")
    other.tell(0, 1.0)
    assert behind.flush(30)
    assert list_trials(behind, "other") == list_trials(backend, "other")
    behind.close()
    assert behind.failing_since is None


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_study_that_another_program_deletes_is_noticed_once(
    databases: Databases, caplog: pytest.LogCaptureFixture
) -> None:
    url = databases.new()
    backend = databases.open(url)
    behind = WriteBehind(backend, interval_s=NEVER_S)
    study, other = (open_study(behind, name, ["minimize"], 0) for name in ("s", "other"))
    trial = study.ask(DISTRIBUTIONS)
    behind.flush()
    optuna.delete_study(study_name="s", storage=databases.open(url))
    for step in range(3):
        trial.report(step, step)
        assert behind.flush(30)
    other.ask()
    assert behind.flush(30)
    assert messages(caplog) == [
        "another program has deleted the study 's'; its changes are no longer recorded"
    ]
    assert list_trials(behind, "other") == list_trials(backend, "other")
    with pytest.raises(StorageInternalError, match="deleted"):
        study.ask()
    behind.close()


@pytest.mark.parametrize("kind", ["sqlite"])
def test_a_storage_with_an_unknown_schema_is_written_by_the_api_of_optuna(
    databases: Databases, caplog: pytest.LogCaptureFixture
) -> None:
    backend = databases.open(databases.new())
    with engine_of(backend).begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = 'v9.9.9.z'")
    behind = WriteBehind(backend, interval_s=NEVER_S)
    [message] = messages(caplog)
    assert (
        "row by row, which is slow: the schema is version v9.9.9.z (expected v3.2.0.a)" in message
    )
    play_actions(open_study(behind, "s", ["minimize"], 0), 0, behind.flush)
    behind.close()
    assert list_trials(behind, "s") == list_trials(backend, "s")


@pytest.mark.parametrize("kind", ["sqlite"])
def test_a_table_with_another_column_is_not_written_directly(
    databases: Databases, caplog: pytest.LogCaptureFixture
) -> None:
    backend = databases.open(databases.new())
    with engine_of(backend).begin() as connection:
        connection.exec_driver_sql("ALTER TABLE trials ADD COLUMN owner TEXT")
    WriteBehind(backend).close()
    [message] = messages(caplog)
    assert "the table trials does not have the columns of version v3.2.0.a" in message


@pytest.mark.parametrize("kind", ["sqlite", "postgresql", "mysql", "journal"])
def test_kill_9_loses_nothing_that_was_confirmed(databases: Databases, tmp_path: Path) -> None:
    url = databases.new()
    errors = tmp_path / "errors"
    confirmed: list[tuple[int, int]] = []
    with (
        errors.open("w") as stderr,
        subprocess.Popen(
            [sys.executable, "-c", _CHILD, url],
            stdout=subprocess.PIPE,
            stderr=stderr,
            env={"PYTHONPATH": ":".join(sys.path)},
            text=True,
        ) as child,
    ):
        assert child.stdout
        for line in child.stdout:
            number, step = map(int, line.split())
            confirmed.append((number, step))
            if len(confirmed) == 500:
                child.send_signal(signal.SIGKILL)
    assert len(confirmed) >= 500, errors.read_text()
    behind = WriteBehind(databases.open(url))
    recorded = behind.get_all_trials(behind.load_or_create_study("s", MINIMIZE))
    for number, step in confirmed:
        assert recorded[number].intermediate_values[step] == step
    for trial in recorded:
        assert list(trial.params) == list(DISTRIBUTIONS)
        assert trial.state.is_finished() <= (len(trial.intermediate_values) == 20)
    behind.close()
