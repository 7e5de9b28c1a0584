"""Trials of plain Optuna in this process, without a bus: for notebooks and tests.

```
python examples/in_process.py
```
"""

import optuna

import trialbus
from trialbus_services import run_optuna_trial

SPEC = trialbus.StudySpec(
    name="quadratic",
    params={"x": trialbus.FloatParam(low=-10, high=10)},
    objectives=(trialbus.Objective(metric="loss", direction="minimize"),),
    n_trials=20,
    budget=5,
)


def train(trial: trialbus.Trial) -> None:
    for step in range(trial.budget):
        trial.report(step, {"loss": trial.params["x"] ** 2 + 1 / (step + 1)})


def main() -> None:
    study = optuna.create_study(pruner=optuna.pruners.MedianPruner())
    study.optimize(lambda trial: run_optuna_trial(train, trial, SPEC), SPEC.n_trials)
    print(f"best loss {study.best_value:.3f} with {study.best_params}")


if __name__ == "__main__":
    main()
