"""The sampler of a study in a process of its own, so that asking never holds up the optimizer.

`study_copy` is the study as the sampler sees it, `sampler_process` serves it, `suggester` is the
optimizer's side.
"""

from trialbus_services.optimizer.sampling.messages import Suggestion
from trialbus_services.optimizer.sampling.suggester import Suggester, warm_up

__all__ = ["Suggester", "Suggestion", "warm_up"]
