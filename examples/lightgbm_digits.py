"""LightGBM: boosted trees on handwritten digits, reported after every round.

```
python examples/lightgbm_digits.py     # alone; needs `pip install trialbus[lightgbm]`
trialbus study study=digits "study.objective.metric='val/multi_error'" \
  study.objective.direction=minimize "trainer.command=[python,examples/lightgbm_digits.py]"
```
"""

import lightgbm
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import trialbus
from trialbus.callbacks.lightgbm import TrialCallback

DEFAULTS = {"lr": 0.1, "weight_decay": 1e-4, "width": 32, "dropout": 0.1}


def main() -> None:
    pixels, digits = load_digits(return_X_y=True)
    x_train, x_val, y_train, y_val = train_test_split(pixels, digits, random_state=0)
    train = lightgbm.Dataset(x_train, y_train)
    with trialbus.attach(defaults=DEFAULTS, budget=20) as trial:
        lightgbm.train(
            {
                "objective": "multiclass",
                "num_class": 10,
                "metric": "multi_error",
                "learning_rate": trial.params["lr"],
                "lambda_l2": trial.params["weight_decay"],
                "num_leaves": trial.params["width"],
                "feature_fraction": 1.0 - trial.params["dropout"],
                "seed": trial.seed % 2**31,
                "num_threads": 1,
                "verbosity": -1,
            },
            train,
            num_boost_round=trial.budget,
            valid_sets=[train.create_valid(x_val, y_val)],
            valid_names=["val"],
            callbacks=[TrialCallback(trial)],
        )


if __name__ == "__main__":
    main()
