"""A whole study from the command line: launcher, services and trainers as processes."""

from __future__ import annotations

import os
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import optuna
import psutil
import pytest

import trialbus
from support.commands import N_TRIALS, small_study
from support.processes import Bus, Managed
from support.until import until
from trialbus.client.admin import hub_status


def launch(bus: Bus, *arguments: str) -> Managed:
    return bus.service("study", *arguments)


def stored(bus: Bus) -> optuna.Study:
    return optuna.load_study(
        study_name="quadratic", storage=f"sqlite:///{bus.directory}/optuna_studies.db"
    )


def finished_trials(bus: Bus) -> int:
    database = bus.directory / "optuna_studies.db"
    if not database.exists():
        return 0
    with closing(sqlite3.connect(database)) as connection:
        try:
            query = "SELECT count(*) FROM trials WHERE state IN ('COMPLETE', 'PRUNED', 'FAIL')"
            return int(connection.execute(query).fetchone()[0])
        except sqlite3.OperationalError:
            return 0  # it is being made


def processes_of(bus: Bus) -> list[psutil.Process]:
    """Return all processes in the folder of a bus, with or without a living parent."""
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        try:
            if process.cwd() == str(bus.directory) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def service_pid(bus: Bus, name: str) -> int | None:
    for process in processes_of(bus):
        arguments = process.cmdline()
        if "trialbus_services" in arguments and name in arguments:
            return process.pid
    return None


def assert_complete(bus: Bus) -> None:
    trials = stored(bus).trials
    assert [trial.number for trial in trials] == list(range(N_TRIALS))
    assert {trial.state for trial in trials} == {optuna.trial.TrialState.COMPLETE}
    for trial in trials:
        assert trial.intermediate_values == {
            s: trial.params["x"] ** 2 + 1 / (s + 1) for s in range(5)
        }


def test_one_command_runs_a_study_and_leaves_nothing_behind(bus: Bus) -> None:
    study = launch(bus, *small_study())
    assert study.wait(60) == 0, study.printed()
    assert_complete(bus)
    assert "8 complete, 0 pruned, 0 failed" in study.printed()
    report = Path(
        next(line for line in study.printed().splitlines() if line.startswith("report")).split()[-1]
    )
    assert report.is_file()
    until(lambda: not processes_of(bus), 10, "the end of all processes")


@pytest.mark.parametrize("name", ["hub", "optimizer", "worker", "reporter"])
def test_a_service_that_is_killed_in_the_middle_is_started_again_and_no_trial_is_lost(
    bus: Bus, name: str
) -> None:
    study = launch(bus, *small_study(step_s=0.2), "worker.ttl_s=2")
    until(lambda: finished_trials(bus) >= 2, 40, "two trials")
    os.kill(until(lambda: service_pid(bus, name), 10, f"the {name}") or 0, signal.SIGKILL)
    assert study.wait(60) == 0, study.printed()
    assert f"the {name} was killed by SIGKILL; starting it again" in study.printed()
    assert_complete(bus)
    until(lambda: not processes_of(bus), 10, "the end of all processes")


def test_a_database_that_is_deleted_in_the_middle_is_rebuilt_from_the_log(bus: Bus) -> None:
    study = launch(bus, *small_study(step_s=0.2))
    until(lambda: finished_trials(bus) >= 3, 40, "three trials")
    before = stored(bus).trials
    for file in bus.directory.glob("optuna_studies.db*"):
        file.unlink()
    assert study.wait(60) == 0, study.printed()
    assert_complete(bus)
    assert "8 complete, 0 pruned, 0 failed" in study.printed()
    for trial, earlier in zip(stored(bus).trials, before, strict=False):
        assert (trial.params, trial.distributions) == (earlier.params, earlier.distributions)
        if earlier.state.is_finished():
            assert (trial.values, trial.user_attrs) == (earlier.values, earlier.user_attrs)


def test_interrupted_in_the_middle_it_ends_everything_and_the_same_command_resumes(
    bus: Bus,
) -> None:
    study = launch(bus, *small_study(step_s=0.2))
    until(lambda: finished_trials(bus) >= 2, 40, "two trials")
    study.signal(signal.SIGINT)
    assert study.wait(30) == 130
    assert "the same command resumes the study" in study.printed()
    until(lambda: not processes_of(bus), 10, "the end of all processes")
    done = finished_trials(bus)
    assert 2 <= done < N_TRIALS
    study.start()
    assert study.wait(60) == 0, study.printed()
    assert f"resumed with {done} of 8 trials done" in study.printed()
    assert_complete(bus)


def test_a_second_ctrl_c_hurries_and_abandons_no_process(bus: Bus) -> None:
    study = launch(bus, *small_study(step_s=0.2))
    until(lambda: finished_trials(bus) >= 1, 40, "a trial")
    study.signal(signal.SIGINT)
    until(lambda: "the same command resumes" in study.printed(), 20, "the first Ctrl-C")
    study.signal(signal.SIGINT)
    until(lambda: "ending the services" in study.printed(), 20, "the second Ctrl-C")
    study.signal(signal.SIGINT)
    assert study.wait(40) == 130
    assert not processes_of(bus)


def test_sigterm_ends_everything_and_says_how_to_go_on(bus: Bus) -> None:
    study = launch(bus, *small_study(step_s=0.2))
    until(lambda: finished_trials(bus) >= 1, 40, "a trial")
    study.signal(signal.SIGTERM)
    assert study.wait(40) == 128 + signal.SIGTERM
    assert "the same command resumes the study" in study.printed()
    assert not processes_of(bus)


def test_when_the_launcher_is_killed_everything_ends(bus: Bus) -> None:
    study = launch(bus, *small_study(step_s=0.2))
    until(lambda: finished_trials(bus) >= 1, 40, "a trial")
    study.kill()
    until(lambda: not processes_of(bus), 30, "the end of all processes")


def test_services_that_are_up_are_used_and_left_running(bus: Bus) -> None:
    bus.service("hub")
    for name in ("optimizer", "reporter"):
        bus.service(name)
    bus.service("worker", *small_study())
    with trialbus.Link(bus.endpoint) as link:
        link.wait_connected(20)
        until(lambda: len(hub_status(link).sessions) == 3, 20, "three services")
        study = launch(bus, *small_study())
        assert study.wait(60) == 0, study.printed()
        assert_complete(bus)
        assert len(hub_status(link).sessions) == 3
    assert not (bus.directory / "log" / "logs" / "hub.log").exists()


def test_the_same_study_from_two_terminals_is_run_once_and_both_see_its_end(bus: Bus) -> None:
    command = launch(bus, *small_study(step_s=0.2)).command
    second = bus.run("second", command)
    for study in (bus.processes["study"], second):
        assert study.wait(90) == 0, study.printed()
        assert "8 complete, 0 pruned, 0 failed" in study.printed()
    assert_complete(bus)
    until(lambda: not processes_of(bus), 10, "the end of all processes")


def test_the_second_run_of_a_finished_study_says_so_at_once(bus: Bus) -> None:
    study = launch(bus, *small_study(n_trials=2, steps=1))
    assert study.wait(60) == 0
    study.start()
    assert study.wait(30) == 0
    assert "resumed with 2 of 2 trials done" in study.printed()
    assert len(stored(bus).trials) == 2


def test_a_finished_study_that_is_started_again_shows_the_best_value_so_far(bus: Bus) -> None:
    command = small_study(steps=1, step_s=0.0, n_trials=2)
    first = launch(bus, *command)
    assert first.wait(60) == 0, first.printed()
    second = bus.run("second", first.command)
    assert second.wait(60) == 0, second.printed()
    assert "2/2 trials done, 0 running, best " in second.printed()


@pytest.mark.parametrize("lost", ["the tail", "everything"])
def test_a_study_that_the_log_has_lost_is_submitted_again_and_goes_on(bus: Bus, lost: str) -> None:
    hub = bus.hub()
    study = launch(bus, *small_study(step_s=0.2), "worker.ttl_s=2")
    until(lambda: finished_trials(bus) >= 2, 40, "two trials")
    hub.kill()
    for file in (bus.directory / "log").glob("events.*"):
        if lost == "everything" or file.suffix in {".db-wal", ".db-shm"}:
            file.unlink()
    hub.start()
    assert study.wait(50) == 0, study.printed()
    assert "the study is submitted again" in study.printed()
    assert_complete(bus)
