"""A training as a function, in a process forked from a process that has imported PyTorch.

```
trialbus study study=digits trainer=function trainer.cwd=examples \
  trainer.function=warm_digits:train "+trainer.env.OMP_NUM_THREADS='1'"
python examples/warm_digits.py     # alone
```
"""

import torch
from digits import DEFAULTS, OPTIMIZERS, build_model, evaluate, load_split, train_epoch

import trialbus


def train(trial: trialbus.Trial) -> None:
    params = trial.params
    torch.manual_seed(trial.seed)
    x_train, y_train, x_val, y_val = load_split()
    model = build_model(params["width"], params["dropout"])
    optimizer = OPTIMIZERS[params["optimizer"]](
        model.parameters(), lr=params["lr"], weight_decay=params["weight_decay"]
    )
    for epoch in range(trial.budget):
        train_epoch(model, optimizer, x_train, y_train)
        accuracy, loss = evaluate(model, x_val, y_val)
        trial.report(epoch, {"val/accuracy": accuracy, "val/loss": loss})


if __name__ == "__main__":
    with trialbus.attach(defaults=DEFAULTS, budget=20) as trial:
        train(trial)
