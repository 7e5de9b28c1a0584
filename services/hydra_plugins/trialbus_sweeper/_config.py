"""Config of the sweeper: its keys with their defaults, and the samplers by name.

docs/hydra-sweeper.md explains every key. Hydra's search for plugins leaves this module out, whose
name begins with `_`: it would execute a module before the module can be imported.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional, Tuple  # noqa: UP035 - OmegaConf reads the annotations

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

_TPE = ("n_startup_trials", "n_ei_candidates", "multivariate", "group", "constant_liar")
_CMAES = (
    *("x0", "sigma0", "n_startup_trials", "independent_sampler", "warn_independent_sampling"),
    *("consider_pruned_trials", "popsize", "use_separable_cma", "with_margin", "lr_adapt"),
    *("restart_strategy", "inc_popsize", "source_trials"),
)
_NSGA = (
    *("population_size", "mutation_prob", "crossover", "crossover_prob", "swapping_prob"),
    "constraints_func",
)
# Optuna has removed them; a config that sets them to what they always were goes on to compose.
_OLD = ("prior_weight", "consider_prior", "consider_magic_clip", "consider_endpoints")

#: Class and arguments of each sampler beside the seed. An argument that is null is left to the
#: class.
_SAMPLERS: Dict[str, Tuple[str, Tuple[str, ...]]] = {  # noqa: UP006
    "tpe": ("TPESampler", (*_TPE, *_OLD, "warn_independent_sampling")),
    "random": ("RandomSampler", ()),
    "cmaes": ("CmaEsSampler", _CMAES),
    "nsgaii": ("NSGAIISampler", _NSGA),
    "nsgaiii": ("NSGAIIISampler", _NSGA),
    "motpe": ("MOTPESampler", ("n_startup_trials", "n_ehvi_candidates", *_OLD)),
    "qmc": ("QMCSampler", ("qmc_type", "scramble", "independent_sampler")),
    "gp": ("GPSampler", ("n_startup_trials", "deterministic_objective")),
    "bruteforce": ("BruteForceSampler", ()),
    "grid": ("GridSampler", ()),
}


@dataclass
class TrialbusSweeperConf:
    """Keys of `hydra.sweeper` with `hydra/sweeper=trialbus`."""

    _target_: str = "hydra_plugins.trialbus_sweeper.sweeper.TrialbusSweeper"
    _recursive_: bool = False  # samplers are names here, never objects of this process
    defaults: List[Any] = field(default_factory=lambda: [{"sampler": "tpe"}])  # noqa: UP006

    # Keys of hydra-optuna-sweeper, with their meaning there.
    sampler: Any = MISSING
    direction: Any = "minimize"
    storage: Any = None
    study_name: Optional[str] = None  # noqa: UP045
    n_trials: int = 20
    n_jobs: int = 2
    max_failure_rate: float = 0.0
    search_space: Any = None
    params: Any = None
    custom_search_space: Optional[str] = None  # noqa: UP045

    # Keys of this sweeper.
    pruner: Any = None
    metric: Any = None
    n_trials_of: str = "study"
    jobs: str = "fork"
    study: Dict[str, Any] = field(default_factory=dict[str, Any])  # noqa: UP006
    overrides: List[str] = field(default_factory=list[str])  # noqa: UP006


def register() -> None:
    """Register the sweeper and its samplers, unless another plugin has a sampler of that name."""
    store = ConfigStore.instance()
    store.store(
        group="hydra/sweeper", name="trialbus", node=TrialbusSweeperConf, provider="trialbus"
    )
    group = "hydra/sweeper/sampler"
    for name, (class_, arguments) in _SAMPLERS.items():
        if not _is_stored(store, group, f"{name}.yaml"):
            node = {
                "_target_": f"optuna.samplers.{class_}",
                "seed": None,
                **dict.fromkeys(arguments),
            }
            store.store(group=group, name=name, node=node, provider="trialbus")


def _is_stored(store: ConfigStore, group: str, name: str) -> bool:
    folder: Any = store.repo
    for part in (*group.split("/"), name):
        if part not in folder:
            return False
        folder = folder[part]
    return True
