"""The durable name of the optimizer belongs to the types of events that the optimizer reads."""

from __future__ import annotations

from trialbus_services.optimizer.loop import OptimizerLoop
from trialbus_services.optimizer.reading import READING


def test_the_durable_name_changes_with_the_types_that_the_optimizer_reads() -> None:
    types = sorted(str(type_.__struct_config__.tag) for type_ in OptimizerLoop.TYPES)
    # The hub refuses another filter under a name: whoever changes the types changes the name, too,
    # and adds the name before to those that the optimizer takes over.
    assert (READING, " ".join(types)) == (
        "optimizer-3",
        (
            "artifact_logged enqueue evaluation_complete param_requested pause prune "
            "request_refused request_withdrawn resume stop study_finished study_started "
            "study_submitted trainer_lost trial_assigned trial_attribute_set trial_closed "
            "trial_finished trial_requested"
        ),
    )
