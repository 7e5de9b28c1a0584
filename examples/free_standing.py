"""A training that requests a trial by itself: a Ray task, a Slurm array element, a shell loop.

```
trialbus study --config-dir examples/conf study=quadratic launcher=none &
for i in 1 2 3 4 5 6 7 8; do python examples/free_standing.py; done
```
"""

import trialbus


def main() -> None:
    # $TRIALBUS_ENDPOINT has the address of the hub; the default is a hub started in this folder.
    with trialbus.attach(study="quadratic", timeout_s=30) as trial:
        x = trial.params["x"]
        for step in range(trial.budget):
            trial.report(step, {"loss": x * x + 1 / (step + 1)})


if __name__ == "__main__":
    main()
