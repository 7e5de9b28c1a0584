"""Objective functions of Optuna, for tests, as they run under `study.optimize`, too."""

from __future__ import annotations

import optuna


def minimize_curve(trial: optuna.Trial) -> float:
    """An objective with a param of some trials only, a constraint, and a curve to be pruned."""
    x = trial.suggest_float("x", -5, 5)
    if trial.suggest_categorical("kind", ["plain", "shifted"]) == "shifted":
        x += trial.suggest_int("shift", 1, 8, log=True)
    width = trial.suggest_float("width", 0.0, 1.0, step=0.25)
    trial.set_constraint("width", width - 0.5)
    for step in range(4):
        trial.report(x**2 + width + 1 / (step + 1), step)
        if trial.should_prune():
            raise optuna.TrialPruned
    trial.set_user_attr("squared", x**2)
    return x**2 + width


def return_two_values(trial: optuna.Trial) -> tuple[float, float]:
    x = trial.suggest_float("x", 0, 1)
    return x, 1 - x


def ask_for_another_kind(trial: optuna.Trial) -> float:
    """An objective whose param is a number in one trial and a choice in the next."""
    if trial.number == 0:
        return trial.suggest_float("x", 0, 1)
    return float(trial.suggest_categorical("x", [1, 2]))
