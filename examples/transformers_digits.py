"""Hugging Face Transformers: a tiny BERT that reads digits pixel by pixel, from scratch.

```
python examples/transformers_digits.py     # alone; needs `pip install trialbus[transformers]`
trialbus study study=digits study.budget=3 "study.objective.metric=eval_accuracy" \
  "trainer.command=[python,examples/transformers_digits.py]"
```
"""

import tempfile
from typing import Any

import torch
from sklearn.datasets import load_digits
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    EvalPrediction,
    Trainer,
    TrainingArguments,
)

import trialbus
from trialbus.callbacks.transformers import TrialCallback

DEFAULTS = {"lr": 5e-3, "weight_decay": 1e-4, "width": 32, "dropout": 0.1}


def compute_accuracy(prediction: EvalPrediction) -> dict[str, float]:
    scores: Any = prediction.predictions
    return {"accuracy": (scores.argmax(1) == prediction.label_ids).mean()}


def load_examples() -> list[dict[str, Any]]:
    """Return sequences of 64 grey levels from 0 to 16, as tokens, with the digits as labels."""
    pixels, digits = load_digits(return_X_y=True)
    return [
        {"input_ids": torch.tensor(image).long(), "labels": int(digit)}
        for image, digit in zip(pixels, digits, strict=True)
    ]


def main() -> None:
    out = tempfile.gettempdir()  # nothing is saved there
    with trialbus.attach(defaults=DEFAULTS, budget=5) as trial:
        width = trial.params["width"] // 2 * 2
        torch.manual_seed(trial.seed)
        config = BertConfig(
            vocab_size=17,
            hidden_size=width,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=2 * width,
            hidden_dropout_prob=trial.params["dropout"],
            max_position_embeddings=64,
        )
        config.num_labels = 10
        model = BertForSequenceClassification(config)
        data = load_examples()
        trainer = Trainer(
            model,
            TrainingArguments(
                out,
                num_train_epochs=trial.budget,
                learning_rate=trial.params["lr"],
                weight_decay=trial.params["weight_decay"],
                per_device_train_batch_size=16,
                eval_strategy="epoch",
                save_strategy="no",
                report_to="none",
                seed=trial.seed % 2**31,
                use_cpu=True,
            ),
            train_dataset=data[:1437],
            eval_dataset=data[1437:],
            compute_metrics=compute_accuracy,
            callbacks=[TrialCallback(trial)],
        )
        trainer.train()


if __name__ == "__main__":
    main()
