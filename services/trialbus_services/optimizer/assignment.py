"""Assignment: what a trainer gets of a trial of a study."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from trialbus.messages import events
from trialbus.study.spec import StudySpec
from trialbus_services.optimizer.trial_states import OpenTrial


def build_assignment(
    spec: StudySpec,
    number: int,
    stored: Mapping[str, Any],
    *,
    define_by_run: events.DefineByRun | None = None,
    request: events.TrialRequested | None = None,
    attempt: int = 0,
    before: OpenTrial | None = None,
    at: float | None = None,
) -> events.TrialAssigned:
    """Return the assignment of a trial, with values in place of the labels in the storage.

    Args:
        spec: Specification of the study.
        number: Number of the trial.
        stored: Params of the trial, as the Optuna storage has them.
        define_by_run: What a training gets that asks for its params itself; None for others.
        request: Request that the assignment answers; None for an assignment that is not published.
        attempt: Attempt at the trial, from 0.
        before: The attempt before, if there was one.
        at: Time in seconds since the epoch; None for now.
    """
    return events.TrialAssigned(
        study=spec.name,
        at=time.time() if at is None else at,
        trial=number,
        attempt=attempt,
        request=request.request if request else "",
        session=request.session if request else "",
        params=spec.decode_params(stored),
        labels=spec.find_labels(stored),
        seed=spec.make_seed(number),
        budget=spec.budget,
        evaluation=spec.evaluation,
        config=spec.config,
        config_name=spec.config_name,
        worker=request.worker if request else "",
        slot=request.slot if request else 0,
        timeout_s=spec.trial_timeout_s,
        silence_s=spec.silence_s,
        n_idle=before.count_idle() if before else 0,
        define_by_run=define_by_run,
        last_step=before.last_step if before and before.last_step >= 0 else None,
    )
