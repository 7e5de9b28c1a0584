"""The end of a study: the reason to end the study, and the event `study_finished`."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import optuna

from trialbus.messages import events
from trialbus_services.optimizer.best_trials import find_best_trials
from trialbus_services.optimizer.ledger import StudyState
from trialbus_services.optimizer.running_study import RunningStudy
from trialbus_services.optimizer.storage_writer.write_behind import WriteBehind
from trialbus_services.optimizer.study_recorder import make_counts
from trialbus_services.optimizer.trial_states import AttemptEnd, OpenTrial
from trialbus_services.process.error_text import describe_error


@dataclass(frozen=True)
class StudyEnd:
    """The reason why a study ends."""

    reason: events.FinishReason
    error: str | None = None
    """Explanation of the reason; None where the reason needs none."""


def find_end(study: RunningStudy, now: float) -> StudyEnd | None:
    """Return the reason why a study ends; None while trials may still begin.

    Args:
        study: The study.
        now: Time in seconds since the epoch.
    """
    spec, state = study.spec, study.state
    if state.stop_reason is not None:
        return StudyEnd("stopped", state.stop_reason)
    failure = study.failures.reason_to_end
    if failure is not None:
        return StudyEnd("failed", failure)
    if spec.timeout_s is not None and compute_elapsed(state, now) > spec.timeout_s:
        return StudyEnd("timeout")
    convergence = study.progress.reason_to_end
    if convergence is not None:
        return StudyEnd("converged", convergence)
    return StudyEnd("exhausted") if study.is_exhausted else None


def compute_elapsed(state: StudyState, now: float) -> float:
    """Return the seconds since the first trial of the submission was handed out; 0 before."""
    return 0.0 if state.began_at is None else now - state.began_at


def describe_overdue(state: StudyState, now: float) -> str | None:
    """Return why the running trials of a study are ended; None while they may go on."""
    spec = state.spec
    if spec.timeout_s is None or spec.timeout_grace_s is None:
        return None
    if compute_elapsed(state, now) <= spec.timeout_s + spec.timeout_grace_s:
        return None
    return (
        f"study.timeout_s={spec.timeout_s:g} and timeout_grace_s={spec.timeout_grace_s:g} are over"
    )


def make_abandonment(study: str, trial: OpenTrial, reason: str, now: float) -> AttemptEnd:
    """Return the end of an open trial of a study that ends: no further attempt follows.

    Args:
        study: Name of the study.
        trial: The trial, which runs or waits.
        reason: Why the trial ends.
        now: Time in seconds since the epoch.
    """
    if not trial.is_waiting:
        trial.add_run(now)
        trial.causes.append("preempted")
    # A trial that never ran was given back by a worker that stopped.
    cause = trial.causes[-1] if trial.causes else "preempted"
    return AttemptEnd(study, trial, "failed", cause, error=reason)


def conclude(study: RunningStudy, end: StudyEnd) -> events.StudyFinished:
    """Return the event that declares a study without open trials finished."""
    best = study.find_best_trials()
    error = end.error
    if not best and error is None:
        error = "no trial was completed"
        if study.counts.complete:
            error = "no trial meets the constraints"
        elif study.failures.first is not None:
            error = f"{error}; {study.failures.first}"
    return events.StudyFinished(
        study=study.spec.name,
        submission=study.state.submission,
        reason=end.reason,
        best_trials=best,
        counts=study.counts,
        error=error,
    )


def conclude_failed(
    state: StudyState,
    error: Exception,
    counts: events.TrialCounts,
    best_trials: list[events.BestTrial],
) -> events.StudyFinished:
    """Return the event that declares a study finished as failed because of an error.

    Args:
        state: The study as the log has it.
        error: The error.
        counts: Numbers of finished trials, by state.
        best_trials: The best trials.
    """
    return events.StudyFinished(
        study=state.spec.name,
        submission=state.submission,
        reason="failed",
        best_trials=best_trials,
        counts=counts,
        error=describe_error(error),
    )


def read_recorded_trials(
    storage: WriteBehind, name: str, *, is_running: bool
) -> tuple[events.TrialCounts, list[events.BestTrial]]:
    """Read the counts and the best trials of a study that failed; empty where they are not known.

    Args:
        storage: Storage that records the study.
        name: Name of the study.
        is_running: Whether the study stays in memory; else it is released again.
    """
    try:
        study_id = storage.get_study_id_from_name(name)
        try:
            study = optuna.Study(name, storage)
            states = Counter(trial.state for trial in study.get_trials(deepcopy=False))
            return make_counts(states), find_best_trials(study)
        finally:
            if not is_running:
                storage.release(study_id)
    except Exception:  # noqa: BLE001 - the study's own failure is what is to be published
        return events.TrialCounts(), []
