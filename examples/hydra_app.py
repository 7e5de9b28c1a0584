"""An application with `@hydra.main` that does not import trialbus, optimized without a change.

```
python examples/hydra_app.py optimizer.lr=0.1     # alone
trialbus study --config-dir examples/conf study=hydra_app trainer=hydra \
  "trainer.command=[python,examples/hydra_app.py]"
python examples/hydra_app.py -m hydra/sweeper=trialbus hydra.sweeper.direction=maximize \
  'optimizer.lr=tag(log,interval(1e-4,1e-1))' 'model.width=choice(32,64)'    # Hydra's own -m
```
"""

import hydra
from omegaconf import DictConfig
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier


@hydra.main(version_base=None, config_path="conf", config_name="hydra_app")
def main(config: DictConfig) -> float:
    pixels, digits = load_digits(return_X_y=True)
    x_train, x_val, y_train, y_val = train_test_split(pixels / 16.0, digits, random_state=0)
    model = MLPClassifier(
        hidden_layer_sizes=(config.model.width,),
        activation=config.model.activation,
        learning_rate_init=config.optimizer.lr,
        max_iter=config.epochs,
        early_stopping=True,
        random_state=0,
    )
    accuracy = float(model.fit(x_train, y_train).score(x_val, y_val))
    print(f"accuracy {accuracy:.3f}")
    return accuracy


if __name__ == "__main__":
    main()
