"""Run: simulation after simulation for a time, each with the next seed."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import optuna

from simulation.bus_simulation import BusSimulation
from simulation.study_simulation import StudySimulation
from simulation.world import Violation
from trialbus.hub.hub import Hub

optuna.logging.set_verbosity(optuna.logging.ERROR)
_SHARED_MEMORY = Path("/dev/shm")
_ROUGH_S = 30.0  # simulated, in one simulation


@dataclass
class Outcome:
    """What a run found."""

    seed: int
    """Seed of the first simulation."""
    faults: int = 0
    """Number of faults that were injected."""
    faults_per_s: float = 0.0
    """Faults in a second of real time."""
    violations: list[str] = field(default_factory=list[str])
    """Broken guarantees, each with the seed and the step."""
    simulations: int = 0
    """Number of simulations."""
    by_fault: dict[str, int] = field(default_factory=dict[str, int])
    """Number of faults by kind."""


Simulation: TypeAlias = BusSimulation | StudySimulation


def simulate(seed: int, hub_class: type[Hub] = Hub) -> tuple[Simulation, str | None]:
    """Run one simulation; return it, and the violation if there is one.

    Every third seed simulates studies, the others a bus alone.
    """
    base = _SHARED_MEMORY if _SHARED_MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="trialbus-", dir=base) as directory:
        make = StudySimulation if seed % 3 == 2 else BusSimulation
        simulation: Simulation = make(seed, Path(directory), hub_class)
        try:
            simulation.run(_ROUGH_S)
        except Violation as violation:
            world = simulation.world
            return simulation, f"seed {seed}, step {world.n_steps} ({world.now:.3f} s): {violation}"
        finally:
            simulation.close()
    return simulation, None


def run(seed: int, seconds: float, *, until_violation: bool = False) -> Outcome:
    """Run simulations for a number of seconds, at least one."""
    outcome = Outcome(seed)
    began = time.perf_counter()
    faults: Counter[str] = Counter()
    while True:
        simulation, violation = simulate(seed + outcome.simulations)
        outcome.simulations += 1
        faults += simulation.world.faults
        if violation is not None:
            outcome.violations.append(violation)
        elapsed_s = time.perf_counter() - began
        if elapsed_s >= seconds or (until_violation and outcome.violations):
            break
    outcome.faults = sum(faults.values())
    outcome.faults_per_s = round(outcome.faults / elapsed_s, 1)
    outcome.by_fault = dict(faults)
    return outcome
