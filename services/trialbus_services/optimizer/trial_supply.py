"""Making the trial of a suggestion in a storage."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from optuna.trial import FrozenTrial, TrialState

from trialbus_services.optimizer.attributes import REQUEST
from trialbus_services.optimizer.genetic_parents import renumbered
from trialbus_services.optimizer.sampling import Suggestion
from trialbus_services.optimizer.storage_writer import WriteBehind


def create_trial(
    storage: WriteBehind,
    study_id: int,
    suggestion: Suggestion,
    request: str,
    trial_id_of: Callable[[int], int],
) -> int:
    """Make the trial of a suggestion, seen in the database whole or not at all; return its id.

    Args:
        storage: Where it is made.
        study_id: Of its study there.
        suggestion: Its params, and whether it waits in the study already.
        request: Id of the request that it is for.
        trial_id_of: Gives the id of a trial by its number.
    """
    user_attrs = {**suggestion.user_attrs, REQUEST: request}
    with storage.atomic():
        for key, value in renumbered(suggestion.study_attrs, trial_id_of).items():
            storage.set_study_system_attr(study_id, key, value)
        if suggestion.waiting is None:
            return storage.create_new_trial(
                study_id,
                FrozenTrial(
                    number=-1,
                    trial_id=-1,
                    state=TrialState.RUNNING,
                    value=None,
                    datetime_start=datetime.now(),  # noqa: DTZ005 - as Optuna has it
                    datetime_complete=None,
                    params=suggestion.params,
                    distributions=suggestion.distributions,
                    user_attrs=user_attrs,
                    system_attrs=suggestion.system_attrs,
                    intermediate_values={},
                ),
            )
        trial_id = trial_id_of(suggestion.waiting)
        storage.set_trial_state_values(trial_id, TrialState.RUNNING)
        for name, distribution in suggestion.distributions.items():
            value = distribution.to_internal_repr(suggestion.params[name])
            storage.set_trial_param(trial_id, name, value, distribution)
        for key, value in user_attrs.items():
            storage.set_trial_user_attr(trial_id, key, value)
        for key, value in suggestion.system_attrs.items():
            storage.set_trial_system_attr(trial_id, key, value)
        return trial_id
