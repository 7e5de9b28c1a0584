"""An objective function of Optuna on the bus; only the call of `optimize` is new.

```
python examples/optuna_objective.py
```
"""

import optuna
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier
from sklearn.model_selection import train_test_split

from trialbus_services import optimize

X_train, X_test, y_train, y_test = train_test_split(*load_digits(return_X_y=True), random_state=0)


def objective(trial: optuna.Trial) -> float:
    penalty = trial.suggest_categorical("penalty", ["l2", "elasticnet"])
    model = SGDClassifier(
        loss=trial.suggest_categorical("loss", ["hinge", "log_loss"]),
        alpha=trial.suggest_float("alpha", 1e-6, 1e-1, log=True),
        penalty=penalty,
        l1_ratio=trial.suggest_float("l1_ratio", 0, 1) if penalty == "elasticnet" else 0.0,
        random_state=0,
    )
    accuracy = 0.0
    for epoch in range(5):
        model.partial_fit(X_train, y_train, classes=range(10))
        accuracy = float(model.score(X_test, y_test))
        trial.report(accuracy, epoch)
        if trial.should_prune():
            raise optuna.TrialPruned
    return accuracy


study = optimize(objective, 20, direction="maximize", study_name="digits-objective", n_jobs=2)
print(f"best accuracy {study.best_value:.3f} with {study.best_params}")
