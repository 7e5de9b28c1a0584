"""Train a small network on scikit-learn's handwritten digits and report every epoch.

```
trialbus study study=digits      # a study of 24 trials
python examples/digits.py        # this script alone, with the parameters below
```
"""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy

import trialbus

DEFAULTS = {"lr": 1e-3, "weight_decay": 1e-4, "width": 64, "dropout": 0.1, "optimizer": "adam"}
OPTIMIZERS = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
BATCH = 8
VALIDATION = 360  # of 1797 images


def main() -> None:
    with trialbus.attach(defaults=DEFAULTS, budget=20) as trial:
        params = trial.params
        torch.manual_seed(trial.seed)
        x_train, y_train, x_val, y_val = load_split()
        model = build_model(params["width"], params["dropout"])
        optimizer = OPTIMIZERS[params["optimizer"]](
            model.parameters(), lr=params["lr"], weight_decay=params["weight_decay"]
        )
        for epoch in range(trial.budget):
            train_loss = train_epoch(model, optimizer, x_train, y_train)
            accuracy, loss = evaluate(model, x_val, y_val)
            metrics = {"val/accuracy": accuracy, "val/loss": loss, "train/loss": train_loss}
            # Raises TrialPruned when the trial was pruned; the `with` block then ends quietly.
            trial.report(epoch, metrics)


def load_split() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return x_train `(n, 64)`, y_train `(n,)`, x_val, y_val; the same split for every trial."""
    pixels, digits = load_digits(return_X_y=True)
    x = torch.tensor(pixels / 16.0, dtype=torch.float32)  # 8x8 images with 17 grey levels
    y = torch.tensor(digits)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    val, train = order[:VALIDATION], order[VALIDATION:]
    return x[train], y[train], x[val], y[val]


def build_model(width: int, dropout: float) -> nn.Module:
    """Build a network with two hidden layers."""
    return nn.Sequential(
        nn.Linear(64, width),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(width, 10),
    )


def train_epoch(
    model: nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor, y: torch.Tensor
) -> float:
    """Train an epoch and return the mean training loss."""
    model.train()
    total = 0.0
    for batch in torch.randperm(len(x)).split(BATCH):
        loss = cross_entropy(model(x[batch]), y[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item() * len(batch)
    return total / len(x)


@torch.no_grad()
def evaluate(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> tuple[float, float]:
    """Return accuracy and mean loss."""
    model.eval()
    scores = model(x)
    return (scores.argmax(1) == y).double().mean().item(), cross_entropy(scores, y).item()


if __name__ == "__main__":
    main()
