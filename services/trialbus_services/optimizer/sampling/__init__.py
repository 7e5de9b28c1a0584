"""The sampler of a study in a process of its own, so that asking never holds up the optimizer."""

from trialbus_services.optimizer.sampling.messages import Suggestion
from trialbus_services.optimizer.sampling.parents import renumbered
from trialbus_services.optimizer.sampling.suggester import Latency, Suggester, warm_up

__all__ = ["Latency", "Suggester", "Suggestion", "renumbered", "warm_up"]
