"""Genetic samplers keep the parents of a generation in the study, by ids of the database."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import optuna

import trialbus
from support.client import SPEC, Client, load_study, start_optimizer
from support.processes import Bus

NSGA = trialbus.Component(type="NSGAIISampler", args={"population_size": 4})


def parents(study: optuna.Study) -> list[list[int]]:
    """Return the trials that the database names as parents, a list for each generation."""
    storage = study._storage  # pyright: ignore[reportPrivateUsage]
    attributes = storage.get_study_system_attrs(storage.get_study_id_from_name(study.study_name))
    return [ids for key, ids in sorted(attributes.items()) if ":parent:" in key]


def test_parents_are_trials_of_the_study_also_after_a_restart(
    bus: Bus, client: Callable[[], Client]
) -> None:
    bus.hub()
    service = start_optimizer(bus)
    worker = client()
    # Another study before it, so that numbers and ids are not the same.
    worker.submit(msgspec.structs.replace(SPEC, name="other", n_trials=3))
    for _ in range(3):
        worker.run_one("other")
    worker.submit(msgspec.structs.replace(SPEC, sampler=NSGA, n_trials=16))
    for _ in range(10):
        worker.run_one()
    service.kill()
    start_optimizer(bus)
    for _ in range(6):
        worker.run_one()
    assert worker.next(trialbus.StudyFinished, study=SPEC.name).counts.complete == 16
    study = load_study(bus)
    own = {trial._trial_id for trial in study.trials}  # pyright: ignore[reportPrivateUsage]
    assert min(own) > 3
    found = parents(study)
    assert len(found) >= 2
    for generation in found:
        assert len(generation) == 4
        assert set(generation) <= own
    # Plain Optuna goes on with the next generation.
    study.sampler = optuna.samplers.NSGAIISampler(population_size=4)
    study.ask({"x": optuna.distributions.FloatDistribution(-3, 3)})
