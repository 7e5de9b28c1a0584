"""StudyRecorder: writes a study into an Optuna storage, and counts the trials that ended."""

from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Container, Mapping
from datetime import datetime
from typing import Any

import msgspec
import optuna
from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from trialbus.errors import SpecError
from trialbus.messages import events
from trialbus.study.spec import StudySpec
from trialbus.study.trial_attributes import AttributeKeys, convert_value
from trialbus_services.config.secrets import mask_secrets
from trialbus_services.optimizer.attributes import (
    ATTEMPT,
    CAUSE,
    CAUSES,
    ELAPSED,
    END,
    ERROR,
    HANDED_OUT,
    LATE,
    METRICS,
    ORIGIN,
    PREFIX,
    PRUNE_REASON,
    PRUNED_BY,
    RAN,
    REQUEST,
    SLOT,
    SPEC,
    STATE,
    SUBMISSION,
    WORKER,
)
from trialbus_services.optimizer.best_trials import find_best_trials
from trialbus_services.optimizer.define_by_run import keep_suggestions
from trialbus_services.optimizer.distributions import make_distribution
from trialbus_services.optimizer.ledger import StudyState
from trialbus_services.optimizer.outcome import Outcome
from trialbus_services.optimizer.recorded_study import check_fit
from trialbus_services.optimizer.storage_limits import check_storage_limits
from trialbus_services.optimizer.storage_writer.write_behind import WriteBehind
from trialbus_services.optimizer.storage_writer.writer import RebuildError
from trialbus_services.optimizer.trial_states import AttemptEnd
from trialbus_services.optimizer.verdict import build_verdict

_MAX_ERROR = 16_000  # characters of an error that are recorded, its last ones
_MAX_CAUSES = 100  # causes of earlier attempts that are recorded
_ARTIFACTS = "artifacts:"  # optuna.artifacts._upload.ARTIFACTS_ATTR_PREFIX


class StudyRecorder:
    """Writes a study into an Optuna storage: values, attributes, artifacts and ends.

    Every method may be repeated with the same arguments.

    Args:
        state: The study as the log has it.
        storage: Storage of the study; the study is created if the storage does not have it.
        pruner: Pruner of the study.

    Raises:
        SpecError: The specification does not fit the study that is in the storage.
    """

    def __init__(self, state: StudyState, storage: WriteBehind, pruner: BasePruner) -> None:
        spec = state.spec
        check_storage_limits(storage.backend, spec, mask_secrets(state.origin))
        self.storage = storage
        is_loaded = storage.has_loaded(spec.name)
        self.study_id = storage.load_or_create_study(
            spec.name, [StudyDirection[direction.upper()] for direction in spec.directions]
        )
        self.study = optuna.Study(spec.name, storage, optuna.samplers.RandomSampler(), pruner)
        try:
            check_fit(spec, self.study)
        except SpecError:
            if not is_loaded:  # or else the study runs, as it was submitted before
                self.release()
            raise
        #: Numbers of the trials that ended.
        self.closed: set[int] = set()
        #: Number of failed trials before the newest submission.
        self.n_failed_before = 0
        self._counts: Counter[TrialState] = Counter()
        self._trial_ids: dict[int, int] = {}
        self._load(state)

    @property
    def counts(self) -> events.TrialCounts:
        """Finished trials by state, over the study's whole life."""
        return make_counts(self._counts)

    def read_verdict(self, number: int) -> events.TrialClosed:
        """Return the event that publishes how a trial that ended is recorded."""
        return build_verdict(self.study.study_name, self.get_trial(number), self.counts)

    def get_trial_id(self, number: int) -> int:
        """Return the storage's id of the trial with a number."""
        trial_id = self._trial_ids.get(number)
        if trial_id is None:
            trial_id = self.storage.get_trial_id_from_study_id_trial_number(self.study_id, number)
            self._trial_ids[number] = trial_id
        return trial_id

    def get_trial(self, number: int) -> FrozenTrial:
        """Return the trial with a number."""
        return self.storage.get_trial(self.get_trial_id(number))

    def add_trial(self, trial_id: int) -> FrozenTrial:
        """Add a trial that was created in the storage, and return the trial."""
        trial = self.storage.get_trial(trial_id)
        self._trial_ids[trial.number] = trial_id
        return trial

    def add_ended_trial(self, trial: FrozenTrial) -> None:
        """Count a trial that was created with its end."""
        self.closed.add(trial.number)
        self._counts[trial.state] += 1

    def read_ended_trials(self) -> list[FrozenTrial]:
        """Return the trials that ended, sorted by the time of the end."""
        trials = self.study.get_trials(deepcopy=False)
        ended = [trial for trial in trials if trial.state.is_finished() and trial.datetime_complete]
        return sorted(ended, key=lambda trial: trial.datetime_complete or datetime.min)  # noqa: DTZ901

    def has_metric(self, metric: str) -> bool:
        """Return whether a recorded trial reported a metric, as far as it was trialbus' own."""
        trials = self.study.get_trials(deepcopy=False)
        return any(metric in trial.user_attrs.get(METRICS, {}) for trial in trials)

    def read_running_trials(self) -> list[FrozenTrial]:
        """Return the trials that run in the storage, without trials of other programs."""
        running = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return [trial for trial in running if REQUEST in trial.user_attrs]

    def list_orphans(self, known: Container[int]) -> list[tuple[int, int]]:
        """Return number and newest attempt of the trials that run and are not known as open."""
        return [
            (trial.number, trial.user_attrs.get(HANDED_OUT, ("", 0))[1])
            for trial in self.read_running_trials()
            if trial.number not in known and trial.number not in self.closed
        ]

    def has_conflicts(self) -> bool:
        """Return whether another program has changed trials of the study meanwhile."""
        return self.storage.has_conflicts(self.study_id)

    def find_stale_trials(self, state: StudyState) -> set[int]:
        """Return the numbers of open trials that the ledger has to forget.

        Trials that the storage does not have, or has from another program, belong to a study of the
        same name that was deleted.
        Trials that wait for an attempt and have ended in the storage were closed when the study
        ended before; their verdict may not be published.
        """
        states = {
            trial.number: trial.state
            for trial in self.study.get_trials(deepcopy=False)
            if REQUEST in trial.user_attrs
        }
        return {
            number
            for number, trial in state.trials.open.items()
            if number not in states or (trial.is_waiting and states[number].is_finished())
        }

    def restore_trial(self, spec: StudySpec, event: events.TrialAssigned) -> None:
        """Create the trial of an assignment that the storage lacks, as the trial was handed out.

        Raises:
            RebuildError: The log does not have the trials before, or not all about this trial.
        """
        if event.trial not in self._trial_ids:
            self._create_lost(spec, event)
        if event.attempt:
            trial = self.get_trial(event.trial)
            known: list[Any] = trial.user_attrs.get(HANDED_OUT) or ["", 0]
            if event.attempt > known[1] and not trial.state.is_finished():
                handed_out = [event.request, event.attempt]
                trial_id = self.get_trial_id(event.trial)
                self.storage.set_trial_user_attr(trial_id, HANDED_OUT, handed_out)

    def _create_lost(self, spec: StudySpec, event: events.TrialAssigned) -> None:
        number, trials = event.trial, self.study.get_trials(deepcopy=False)
        if number > len(trials):
            raise RebuildError(f"it has no trial {len(trials)}, and {number} after it")
        stored = spec.encode_params(event.params)
        if not stored.keys() <= spec.space.keys():
            raise RebuildError(f"it does not tell the ranges of the params of trial {number}")
        trial = optuna.trial.create_trial(
            state=TrialState.RUNNING,
            params=stored,
            distributions={name: make_distribution(spec.space[name]) for name in stored},
            user_attrs={
                **keep_suggestions(event.define_by_run.suggestions if event.define_by_run else {}),
                REQUEST: event.request,
            },
        )
        trial.datetime_start = datetime.fromtimestamp(event.at)  # noqa: DTZ006 - as Optuna's
        if number == len(trials):
            self.add_trial(self.storage.create_new_trial(self.study_id, trial))
            return
        waiting = trials[number]
        fixed: dict[str, Any] = waiting.system_attrs.get("fixed_params", {})
        if waiting.state is not TrialState.WAITING or not fixed.items() <= stored.items():
            raise RebuildError(f"trial {number} of the storage is another one")
        trial_id = self.get_trial_id(number)
        self.storage.set_trial_state_values(trial_id, TrialState.RUNNING)
        for name, distribution in trial.distributions.items():
            value = distribution.to_internal_repr(stored[name])
            self.storage.set_trial_param(trial_id, name, value, distribution)
        for key, attribute in trial.user_attrs.items():
            self.storage.set_trial_user_attr(trial_id, key, attribute)
        self.storage.set_trial_times(trial_id, start=trial.datetime_start)

    def restore_end_time(self, number: int, at: float) -> None:
        """Record when a trial ended, in seconds since the epoch."""
        end = datetime.fromtimestamp(at)  # noqa: DTZ006 - Optuna's times are local
        self.storage.set_trial_times(self.get_trial_id(number), complete=end)

    def hand_out(self, trial: FrozenTrial, request: str, next_attempt: int) -> int:
        """Record the request that a trial is handed out for, and return the number of the attempt.

        No two requests get the same attempt of a trial, even if a former optimizer was killed
        before its assignment was sent.

        Args:
            trial: The trial.
            request: Id of the request.
            next_attempt: Lowest attempt that the log has not handed out.
        """
        attributes = trial.user_attrs
        known: list[Any] = attributes.get(HANDED_OUT) or [attributes.get(REQUEST), 0]
        attempt = max(next_attempt, known[1] + (known[0] != request))
        if known != [request, attempt]:
            trial_id = self.get_trial_id(trial.number)
            self.storage.set_trial_user_attr(trial_id, HANDED_OUT, [request, attempt])
        return attempt

    def record_param(
        self, number: int, name: str, value: Any, distribution: BaseDistribution
    ) -> None:
        """Record a param that a running trial asked for.

        Raises:
            ValueError: An earlier trial has a param of another kind under the same name.
        """
        if number not in self.closed:
            self.storage.set_trial_param(
                self.get_trial_id(number), name, distribution.to_internal_repr(value), distribution
            )

    def record_value(self, number: int, step: int, value: float) -> None:
        """Record an intermediate value of an open trial."""
        if number in self.closed:
            return
        trial_id = self._trial_ids.get(number)
        if trial_id is None:
            trial_id = self.get_trial_id(number)
        self.storage.set_trial_intermediate_value(trial_id, step, value)

    def drop_values(self, number: int, first_step: int) -> None:
        """Drop the intermediate values of a trial from a step on."""
        if number not in self.closed:
            self.storage.drop_trial_intermediate_values(self.get_trial_id(number), first_step)

    def drop_system_attr(self, number: int, key: str) -> None:
        """Delete a system attribute of an open trial."""
        if number not in self.closed:
            self.storage.drop_trial_system_attr(self.get_trial_id(number), key)

    def replace_curve(self, number: int, curve: Mapping[int, float]) -> None:
        """Replace the intermediate values of an open trial in memory by values from the log."""
        if number not in self.closed:
            self.storage.replace_curve(self.get_trial_id(number), curve)

    def record_system_attr(self, number: int, key: str, value: object) -> None:
        """Record a system attribute of an open trial."""
        if number not in self.closed:
            self.storage.set_trial_system_attr(self.get_trial_id(number), key, value)

    def record_late_evaluation(self, event: events.EvaluationComplete, offset: int) -> None:
        """Count an evaluation of an attempt that was given up, or of a trial that has ended."""
        if not self._is_known(event.trial):
            return
        trial_id = self.get_trial_id(event.trial)
        late = self.storage.get_trial(trial_id).user_attrs.get(LATE, {"count": 0, "offset": -1})
        if offset > late["offset"]:
            late = {"count": late["count"] + 1, "offset": offset}
            self.storage.amend_trial_user_attr(trial_id, LATE, late)

    def record_artifact(self, event: events.ArtifactLogged) -> None:
        """Record a file that a trial kept, as `optuna.artifacts.upload_artifact` does."""
        if not self._is_known(event.trial):
            return
        meta = {
            "artifact_id": event.artifact,
            "filename": event.filename,
            "mimetype": event.mimetype,
            "encoding": event.encoding,
        }
        self.storage.amend_trial_system_attr(
            self.get_trial_id(event.trial), f"{_ARTIFACTS}{event.artifact}", json.dumps(meta)
        )

    def record_attribute(self, event: events.TrialAttributeSet) -> None:
        """Record a user attribute that a training set on an open trial.

        Raises:
            TypeError: The value is not what JSON can hold.
            ValueError: The key or the value is not what every storage can hold, or the trial has
                too many attributes.
        """
        if event.trial in self.closed:
            return
        value = convert_value(event.key, event.value)
        attributes = self.get_trial(event.trial).user_attrs
        AttributeKeys(key for key in attributes if not key.startswith(PREFIX)).add(event.key)
        self.storage.set_trial_user_attr(self.get_trial_id(event.trial), event.key, value)

    def record_end(
        self,
        end: AttemptEnd,
        outcome: Outcome,
        metrics: Mapping[str, float],
        curve: Mapping[str, Any],
    ) -> None:
        """Record the end of a trial.

        Args:
            end: End of the trial's last attempt.
            outcome: State, values and constraints of the trial.
            metrics: Newest value of every metric.
            curve: User attributes that keep the curve of a metric other than the objective's.
        """
        number = end.trial.number
        trial_id = self.get_trial_id(number)
        attributes: dict[str, Any] = {
            ATTEMPT: end.trial.attempt,
            WORKER: end.trial.worker,
            SLOT: end.trial.slot,
            METRICS: metrics,
            **curve,
        }
        if end.trial.pruned_by:
            attributes[PRUNED_BY] = end.trial.pruned_by
        if outcome.state is TrialState.FAIL:
            attributes[STATE] = "lost" if end.cause == "lost" else "failed"
            attributes[CAUSE] = outcome.cause
            attributes[ERROR] = outcome.error and outcome.error[-_MAX_ERROR:]
        prune_reason = end.trial.prune_reason or outcome.prune_reason
        if outcome.state is TrialState.PRUNED and prune_reason:
            attributes[PRUNE_REASON] = prune_reason
        causes = end.trial.causes if end.cause is None else end.trial.causes[:-1]
        if end.trial.attempt and end.trial.ran_s:
            attributes[RAN] = round(end.trial.ran_s, 3)
        if causes:
            attributes[CAUSES] = causes[-_MAX_CAUSES:]
        with self.storage.atomic(), warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            for key, value in attributes.items():
                self.storage.set_trial_user_attr(trial_id, key, value)
            for key, violation in outcome.constraints.items():
                self.storage.set_trial_system_attr(trial_id, f"constraints:{key}", violation)
            self.study.tell(number, outcome.values, outcome.state)
        self.closed.add(number)
        self._counts[outcome.state] += 1

    @property
    def elapsed_s(self) -> float:
        """Seconds that the study ran in all submissions, as recorded at the end of each."""
        return float(self.study.user_attrs.get(ELAPSED, 0.0))

    def record_elapsed(self, elapsed_s: float) -> None:
        """Record how long the study has run in all submissions."""
        self.study.set_user_attr(ELAPSED, round(elapsed_s, 3))

    def record_study_end(self, reason: str) -> None:
        """Record the reason why the study ended."""
        self.study.set_user_attr(END, reason)

    def find_best_trials(self) -> list[events.BestTrial]:
        """Return the best trial, or the Pareto front; empty without a feasible trial."""
        return find_best_trials(self.study)

    def release(self) -> None:
        """Remove the study from memory; the storage still gets every pending change."""
        self.storage.release(self.study_id)

    def _load(self, state: StudyState) -> None:
        """Read the trials that the storage has, and record the specification."""
        trials = self.study.get_trials(deepcopy=False)
        attributes = self.study.user_attrs
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            if self.study.metric_names != state.spec.metrics:
                self.study.set_metric_names(state.spec.metrics)
        self.study.set_user_attr(SPEC, msgspec.to_builtins(state.spec))
        if state.origin:
            self.study.set_user_attr(ORIGIN, mask_secrets(state.origin))
        if attributes.get(END) is not None:
            self.study.set_user_attr(END, None)
        for trial in trials:
            self.get_trial_id(trial.number)
            if trial.state.is_finished():
                self.closed.add(trial.number)
                self._counts[trial.state] += 1
        submission, self.n_failed_before = attributes.get(SUBMISSION, ("", 0))
        if submission != state.submission:
            self.n_failed_before = self._counts[TrialState.FAIL]
            self.study.set_user_attr(SUBMISSION, [state.submission, self.n_failed_before])

    def _is_known(self, number: int) -> bool:
        return number in self.closed or number in self._trial_ids


def make_counts(counts: Mapping[TrialState, int]) -> events.TrialCounts:
    """Return numbers of finished trials as events carry them."""
    return events.TrialCounts(
        complete=counts.get(TrialState.COMPLETE, 0),
        pruned=counts.get(TrialState.PRUNED, 0),
        failed=counts.get(TrialState.FAIL, 0),
    )
