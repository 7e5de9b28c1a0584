"""scikit-learn: a linear model trained by `partial_fit`, which is a loop like any other.

```
python examples/sklearn_digits.py     # alone
trialbus study study=digits "trainer.command=[python,examples/sklearn_digits.py]"
```
"""

from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier
from sklearn.model_selection import train_test_split

import trialbus

DEFAULTS = {"lr": 1e-2, "weight_decay": 1e-4}


def main() -> None:
    pixels, digits = load_digits(return_X_y=True)
    x_train, x_val, y_train, y_val = train_test_split(pixels / 16.0, digits, random_state=0)
    with trialbus.attach(defaults=DEFAULTS, budget=20) as trial:
        model = SGDClassifier(
            learning_rate="constant",
            eta0=trial.params["lr"],
            alpha=trial.params["weight_decay"],
            random_state=trial.seed,
        )
        for epoch in range(trial.budget):
            model.partial_fit(x_train, y_train, classes=range(10))
            trial.report(epoch, {"val/accuracy": model.score(x_val, y_val)})


if __name__ == "__main__":
    main()
