"""PyTorch Lightning: a small classifier of handwritten digits, reported after every epoch.

```
python examples/lightning_digits.py     # alone; needs `pip install trialbus[lightning]`
trialbus study study=digits study.budget=5 "trainer.command=[python,examples/lightning_digits.py]"
```
"""

from collections.abc import Mapping
from typing import Any

import lightning
import torch
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset, random_split

import trialbus
from trialbus.callbacks.lightning import TrialCallback

DEFAULTS = {"lr": 1e-2, "weight_decay": 1e-4, "width": 64, "dropout": 0.1}


class Classifier(lightning.LightningModule):
    """A network with a hidden layer between 64 pixels and 10 digits."""

    def __init__(self, params: Mapping[str, Any]) -> None:
        super().__init__()
        self.params = params
        self.model = torch.nn.Sequential(
            torch.nn.Linear(64, params["width"]),
            torch.nn.ReLU(),
            torch.nn.Dropout(params["dropout"]),
            torch.nn.Linear(params["width"], 10),
        )

    def training_step(self, batch: list[torch.Tensor]) -> torch.Tensor:
        images, labels = batch
        return torch.nn.functional.cross_entropy(self.model(images), labels)

    def validation_step(self, batch: list[torch.Tensor]) -> None:
        images, labels = batch
        self.log("val/accuracy", (self.model(images).argmax(1) == labels).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(
            self.parameters(), lr=self.params["lr"], weight_decay=self.params["weight_decay"]
        )


def main() -> None:
    with trialbus.attach(defaults=DEFAULTS, budget=5) as trial:
        lightning.seed_everything(trial.seed)
        pixels, digits = load_digits(return_X_y=True)
        data = TensorDataset(torch.tensor(pixels / 16.0).float(), torch.tensor(digits))
        train, held_out = random_split(data, [0.8, 0.2])
        trainer = lightning.Trainer(
            max_epochs=trial.budget,
            callbacks=[TrialCallback(trial)],
            enable_checkpointing=False,
            logger=False,
        )
        loaders = DataLoader(train, 32, shuffle=True), DataLoader(held_out, 360)
        trainer.fit(Classifier(trial.params), *loaders)


if __name__ == "__main__":
    main()
