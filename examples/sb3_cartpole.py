"""Stable-Baselines3: PPO balances a pole, reported at every evaluation of the EvalCallback.

```
python examples/sb3_cartpole.py     # alone; needs `pip install trialbus[sb3]`
trialbus study --config-dir examples/conf study=cartpole \
  "trainer.command=[python,examples/sb3_cartpole.py]"
```
"""

import gymnasium
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.monitor import Monitor

import trialbus
from trialbus.callbacks.sb3 import TrialCallback

DEFAULTS = {"learning_rate": 1e-3, "gamma": 0.98, "ent_coef": 0.0}
EVALUATE_EVERY = 512  # time steps


def main() -> None:
    with trialbus.attach(defaults=DEFAULTS, budget=4) as trial:
        model = PPO(
            "MlpPolicy",
            gymnasium.make("CartPole-v1"),
            n_steps=EVALUATE_EVERY,
            seed=trial.seed % 2**32,
            device="cpu",
            **trial.params,
        )
        evaluate = EvalCallback(
            Monitor(gymnasium.make("CartPole-v1")),
            eval_freq=EVALUATE_EVERY,
            callback_after_eval=TrialCallback(trial),
            verbose=0,
        )
        model.learn(trial.budget * EVALUATE_EVERY, callback=evaluate)


if __name__ == "__main__":
    main()
