"""The sampler of a study in a process of its own, so that asking never holds up the optimizer.

`shadow` is the study as the sampler sees it, `process` serves it, `suggester` is what the optimizer
holds.
"""

from trialbus_services.optimizer.sampling.messages import Suggestion
from trialbus_services.optimizer.sampling.suggester import Suggester, warm_up

__all__ = ["Suggester", "Suggestion", "warm_up"]
