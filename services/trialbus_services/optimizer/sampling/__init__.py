"""Suggests params, in a process of its own for each study, ahead of need.

`shadow` is the study as the sampler sees it, `process` serves it in the child, `suggester` is the
handle that the optimizer holds.
"""

from trialbus_services.optimizer.sampling.messages import Suggestion
from trialbus_services.optimizer.sampling.suggester import Suggester, warm_up

__all__ = ["Suggester", "Suggestion", "warm_up"]
