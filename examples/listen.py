"""Print every evaluation on arrival: `python examples/listen.py [study]`; end with Ctrl-C."""

import contextlib
import sys

import trialbus

study = sys.argv[1] if len(sys.argv) > 1 else None

with contextlib.suppress(KeyboardInterrupt):
    for event in trialbus.subscribe(trialbus.EvaluationComplete, study=study):
        metrics = "  ".join(f"{name} {value:.4f}" for name, value in event.metrics.items())
        print(f"{event.study} trial {event.trial} step {event.step}: {metrics}")
