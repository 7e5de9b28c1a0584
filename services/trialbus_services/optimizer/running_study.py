"""RunningStudy: an Optuna study, kept in step with the ledger.

Every method may be repeated with the same arguments: after a crash the events since the last
commit are applied again. No method waits: the storage answers from memory, the sampler suggests in
a separate process, and the pruner decides from reported values.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import msgspec
from optuna.trial import FrozenTrial

from trialbus.messages import events
from trialbus.messages.trial_events import MAX_METRICS
from trialbus_services.optimizer.allowed_modules import AllowedModules
from trialbus_services.optimizer.assignment import build_assignment
from trialbus_services.optimizer.convergence import Progress
from trialbus_services.optimizer.define_by_run import describe_define_by_run
from trialbus_services.optimizer.enqueuing import (
    check_enqueued,
    find_earlier_trial,
    find_violation,
)
from trialbus_services.optimizer.evaluations import OpenEvaluations
from trialbus_services.optimizer.failures import Failures
from trialbus_services.optimizer.ledger import StudyState
from trialbus_services.optimizer.outcome import Judge
from trialbus_services.optimizer.param_requests import ParamRequests
from trialbus_services.optimizer.prune_decider import PruneDecider
from trialbus_services.optimizer.registry import build_pruner, build_sampler
from trialbus_services.optimizer.sampling.expected_trials import count_expected_trials
from trialbus_services.optimizer.storage_writer.write_behind import WriteBehind
from trialbus_services.optimizer.storage_writer.writer import RebuildError
from trialbus_services.optimizer.study_recorder import StudyRecorder
from trialbus_services.optimizer.trial_states import AttemptEnd, OpenTrial
from trialbus_services.optimizer.trial_supply import SamplerError, StartSampler, TrialSupply

logger = logging.getLogger(__name__)


class RunningStudy:
    """A study in an Optuna storage, created or continued.

    Args:
        state: The study as the log has it; the ledger changes it.
        storage: Storage that records the study.
        start_sampler: Starts the study's sampler.
        allowed: Modules from which the classes of the sampler and the pruner may be imported.

    Raises:
        SpecError: The specification does not fit Optuna, or the study that is in the storage.
    """

    def __init__(
        self,
        state: StudyState,
        storage: WriteBehind,
        start_sampler: StartSampler,
        *,
        allowed: AllowedModules,
    ) -> None:
        self.spec = spec = state.spec
        self.state = state
        self.failures = Failures(spec)
        #: Time at which the study was found in the log; None for a study submitted to this process.
        self.recovered_at: float | None = None
        #: Mark of the storage after the end of the last trial; None before the study ends.
        self.end_mark: int | None = None
        #: Whether the running trials were told to end, since the time of the study is over.
        self.is_overdue = False
        self.progress = Progress(spec)
        self._judge = Judge(spec)
        check_enqueued(spec)
        # A wrong sampler, or one that is not allowed, is refused before a process is started.
        self._sampler = build_sampler(spec, allowed=allowed)
        self._recorder = StudyRecorder(state, storage, build_pruner(spec.pruner, allowed=allowed))
        ended = self._recorder.read_ended_trials()
        self.failures.restore(ended, self._recorder.n_failed_before)
        self.progress.restore(ended)
        for params in spec.enqueue:
            stored = spec.encode_params(params)
            trials = self._recorder.study.get_trials(deepcopy=False)
            if find_earlier_trial(spec, trials, stored) is None:
                self._recorder.study.enqueue_trial(stored, skip_if_exists=True)
        judged = (spec.pruned_by or spec.objectives[0]).metric
        self.evaluations = OpenEvaluations(self._judge.metrics.union(spec.metrics, {judged}))
        self._decider = PruneDecider(spec, self._recorder, self.evaluations)
        #: Trials that have ended in the storage, and are open as far as the log was read.
        self._ahead: set[int] = set()
        self._reused: list[events.TrialClosed] = []
        self._supply = TrialSupply(spec, self._recorder, start_sampler)
        self._param_requests = ParamRequests(self._recorder, self._supply)
        # Optuna keeps one curve of a trial, and none in a study with several objectives.
        self._curve_metric = spec.metrics[0] if len(spec.objectives) == 1 else None

    @property
    def counts(self) -> events.TrialCounts:
        """Finished trials by state, over the study's whole life."""
        return self._recorder.counts

    @property
    def n_done(self) -> int:
        """Number of finished trials."""
        return len(self._recorder.closed)

    @property
    def is_exhausted(self) -> bool:
        """Whether the study gets no new trial, and none that is open may need another attempt."""
        if self.n_done >= self.spec.n_trials:
            return True
        return self._supply.is_exhausted and not self.state.trials.open

    @property
    def n_left(self) -> int:
        """Number of trials that the study still has to create."""
        return self.spec.n_trials - self.n_done - len(self.state.trials.open)

    def declare_started(self, now: float) -> events.StudyStarted:
        """Return the event that declares the study started, with what was recorded before `now`."""
        spec = self.spec
        trials = self._recorder.study.get_trials(deepcopy=False)
        n_trials = count_expected_trials(spec, self._sampler, trials)
        logger.info("study %r: %d of %d trials done", spec.name, self.n_done, n_trials)
        return events.StudyStarted(
            study=spec.name,
            at=now,
            submission=self.state.submission,
            directions=spec.directions,
            metrics=spec.metrics,
            n_trials=n_trials,
            n_done=self.n_done,
            counts=self.counts,
            best_trials=self.find_best_trials(),
            elapsed_s=self._recorder.elapsed_s,
        )

    def request_suggestions(self, n_waiting: int) -> None:
        """Let the sampler suggest trials for a number of waiting requests.

        If the sampler has failed, the study ends as failed when the running trials have ended.
        """
        try:
            self._supply.request(min(n_waiting, self.n_left))
        except SamplerError as error:
            self._add_fault(error)

    def _add_fault(self, error: SamplerError) -> None:
        logger.error("study %r: %s", self.spec.name, error)
        self.failures.add_fault(str(error))

    def assign(self, request: events.TrialRequested, now: float) -> events.TrialAssigned | None:
        """Return a trial for a request: a waiting trial, else a new trial.

        Args:
            request: The request.
            now: Time in seconds since the epoch.

        Returns:
            None if no trial is left, or while the sampler has no suggestion ready.
        """
        trials = self.state.trials.open
        waiting = next((trial for trial in trials.values() if trial.is_waiting), None)
        if waiting is not None:
            trial = self._recorder.get_trial(waiting.number)
        elif self.n_left > 0:
            new_trial = self._supply_trial(request)
            if new_trial is None:
                return None
            trial = new_trial
        else:
            return None
        next_attempt = self.state.trials.find_next_attempt(trial.number)
        attempt = self._recorder.hand_out(trial, request.request, next_attempt)
        define_by_run = describe_define_by_run(self.spec, trial.user_attrs)
        return build_assignment(
            self.spec,
            trial.number,
            trial.params,
            define_by_run=define_by_run,
            request=request,
            attempt=attempt,
            before=waiting,
            at=now,
        )

    def take_reused(self) -> list[events.TrialClosed]:
        """Return the verdicts of trials that got an earlier trial's values, once each."""
        reused, self._reused = self._reused, []
        return reused

    def _supply_trial(self, request: events.TrialRequested) -> FrozenTrial | None:
        """Return a new trial that has to run, and record those before it that need not."""
        while self.n_left > 0:
            trial = self._supply.supply_trial(request, self.state.trials.open)
            if trial is None or not trial.state.is_finished():
                return trial
            self._recorder.add_ended_trial(trial)
            self._reused.append(self._recorder.read_verdict(trial.number))
            self.progress.restore([trial])
            self.failures.add_trial(trial.number, trial.state, None)
            self._supply.request(min(1, self.n_left))
        return None

    def check_enqueued(self, params: Mapping[str, Any]) -> None:
        """Check params that somebody wants to enqueue.

        Raises:
            ValueError: The params are outside of the search space, violate a constraint, or were
                tried before and the study skips duplicates.
        """
        self.spec.check_params(params)
        violation = find_violation(self.spec, params)
        if violation is not None:
            raise ValueError(f"params {params} violates {violation}")
        trials = self._recorder.study.get_trials(deepcopy=False)
        earlier = find_earlier_trial(self.spec, trials, params)
        if earlier is not None:
            raise ValueError(f"params {params} are those of trial {earlier} (study.duplicates)")

    def enqueue(self, event: events.Enqueue) -> None:
        """Let a trial with params of the study's search space wait in the study."""
        params = self.spec.encode_params(event.params)
        self._supply.enqueue(msgspec.structs.replace(event, params=params))

    def restore_trial(self, event: events.TrialAssigned) -> None:
        """Create the trial of an assignment, if the storage has lost the trial.

        Raises:
            RebuildError: The log does not have the trials before, or not all about this trial.
        """
        self._recorder.restore_trial(self.spec, event)

    def restore_verdict(self, verdict: events.TrialClosed) -> None:
        """Let a trial that was rebuilt from the log end as its verdict says.

        Raises:
            RebuildError: The log rebuilds another end, or does not have the trial.
        """
        number = verdict.trial
        try:
            if number not in self._recorder.closed:
                self.close_trial(_make_end(self.spec.name, verdict))
            rebuilt = self.read_verdict(number)
        except KeyError:
            raise RebuildError(f"it has the end of trial {number}, and not its params") from None
        if (rebuilt.state, rebuilt.values) != (verdict.state, verdict.values):
            raise RebuildError(
                f"it would restore trial {number} as {rebuilt.state} with {rebuilt.values}, which "
                f"was {verdict.state} with {verdict.values}"
            )
        self._recorder.restore_end_time(number, verdict.at)

    def restore_elapsed(self) -> None:
        """Record how long the study had run before its newest submission."""
        if self.state.started is not None:
            self._recorder.record_elapsed(self.state.started.elapsed_s)

    def restore(self, event: events.EvaluationComplete | events.Prune) -> None:
        """Add an evaluation or a decision about an open trial from before a restart."""
        if isinstance(event, events.Prune):
            if not event.by:
                self.evaluations.mark_pruned(event.trial, event.attempt)
        elif len(event.metrics) <= MAX_METRICS:
            self.evaluations.add(event, self._decider.select_metrics(event))

    def resume(self) -> None:
        """Load what open trials are compared with; called once, after `restore`."""
        numbers = self.state.trials.open.keys()
        self._ahead = self._recorder.closed & numbers
        if self._curve_metric is not None:
            for number in numbers:
                curve = self.evaluations.get_curve(number, self._curve_metric)
                self._recorder.replace_curve(number, curve)
        self._decider.load_trials(numbers)

    def has_ended(self, number: int) -> bool:
        """Return whether a trial has ended in the storage."""
        return number in self._recorder.closed

    def get_trial_id(self, number: int) -> int:
        """Return the id of a trial in the storage."""
        return self._recorder.get_trial_id(number)

    def has_conflicts(self) -> bool:
        """Return whether another program has changed trials of the study meanwhile."""
        return self._recorder.has_conflicts()

    def read_verdict(self, number: int) -> events.TrialClosed:
        """Return the verdict on a trial that has ended in the storage."""
        return self._recorder.read_verdict(number)

    def build_prunes(self, reason: str, *, ended: bool = False) -> list[events.Prune]:
        """Return the commands that end the running trials.

        Args:
            reason: Why the trials are to end.
            ended: Whether to end only the trials that have ended in the storage already.
        """
        return [
            events.Prune(
                study=self.spec.name,
                trial=trial.number,
                attempt=trial.attempt,
                step=0,
                reason=reason,
            )
            for trial in self.state.trials.open.values()
            if not trial.is_waiting and (trial.number in self._ahead or not ended)
        ]

    def evaluate(self, event: events.EvaluationComplete) -> events.Prune | None:
        """Record an evaluation and return the prune command, if that is the decision.

        Raises:
            ValueError: The evaluation has too many metrics.
        """
        number = event.trial
        if number in self._recorder.closed and number not in self._ahead:
            return None
        if len(event.metrics) > MAX_METRICS:
            raise ValueError(f"{len(event.metrics)} metrics (expected at most {MAX_METRICS})")
        metrics = self._decider.add(event)
        if self._curve_metric is not None:
            value = metrics.get(self._curve_metric)
            if value is not None:
                self._recorder.record_value(number, event.step, value)
        reason = self._decider.decide(number, event.step, metrics)
        if reason is None or not self.evaluations.mark_pruned(number, event.attempt):
            return None
        return events.Prune(
            study=event.study,
            trial=number,
            attempt=event.attempt,
            step=event.step,
            reason=reason,
        )

    def request_param(self, event: events.ParamRequested) -> events.ParamSuggested | None:
        """Apply the request of a running attempt for a param; return the answer if it is known."""
        return self._param_requests.apply(event)

    def take_suggested_params(self) -> list[events.ParamSuggested]:
        """Return the recorded answers to requests for params, once each.

        If the sampler has failed, all are refused, and the study ends as failed when the running
        trials have ended.
        """
        try:
            return self._param_requests.take_answers()
        except SamplerError as error:
            self._add_fault(error)
            return self._param_requests.refuse_all(str(error))

    @property
    def has_param_requests(self) -> bool:
        """Whether a training waits for the value of a param."""
        return self._param_requests.is_pending

    def record_late_evaluation(self, event: events.EvaluationComplete, offset: int) -> None:
        """Count an evaluation of an attempt that was given up, or of a trial that has ended."""
        self._recorder.record_late_evaluation(event, offset)

    def record_artifact(self, event: events.ArtifactLogged) -> None:
        """Record a file that a trial kept."""
        self._recorder.record_artifact(event)

    def record_attribute(self, event: events.TrialAttributeSet) -> None:
        """Record a user attribute that the running attempt of a trial set.

        Raises:
            TypeError: The value is not what JSON can hold.
            ValueError: The key or the value is not what every storage can hold, or the trial has
                too many attributes.
        """
        self._recorder.record_attribute(event)

    def close_trial(self, end: AttemptEnd) -> events.TrialClosed:
        """Record the end of a trial, tell pruner and sampler, and return the verdict."""
        number = end.trial.number
        if number not in self._recorder.closed:
            metrics = self.evaluations.get_newest(number)
            curves = self.evaluations.get_curves(number)
            params = self._recorder.get_trial(number).params
            worst = self.progress.worst
            outcome = self._judge.determine_outcome(end, curves, metrics, worst, params)
            curve = self._decider.make_curve_attributes(number)
            self._recorder.record_end(end, outcome, metrics, curve)
            self._supply.finish(number, outcome)
            self._decider.finish(number, outcome.state)
            self.progress.add_trial(outcome.state, outcome.values, is_feasible=outcome.is_feasible)
            self.failures.add_trial(number, outcome.state, outcome.error)
            metric = outcome.missing_metric
            if metric is not None and not self._was_reported(metric):
                self.failures.add_missing_metric(number, outcome.error)
        elif number in self._ahead:
            self._ahead.remove(number)
            self._decider.finish(number, self._recorder.get_trial(number).state)
        return self._recorder.read_verdict(number)

    def _was_reported(self, metric: str) -> bool:
        """Return whether any trial of the study, also of an earlier run, reported a metric."""
        if self.counts.complete or self.evaluations.has_metric(metric):
            return True
        return self._recorder.has_metric(metric)

    def list_unfinished(self) -> list[OpenTrial]:
        """Return the trials that are open in the log, or that run in the storage alone.

        The latter were created just before a crash, or before another program was noticed.
        """
        known = self.state.trials.open
        orphans = self._recorder.list_orphans(known)
        return [*known.values(), *(OpenTrial(n, a, is_waiting=True) for n, a in orphans)]

    def forget_stale_trials(self) -> list[events.TrialClosed]:
        """Forget open trials that the storage does not have, or has as finished.

        Returns:
            The verdicts of those that have ended, which may not be published.
        """
        stale = self._recorder.find_stale_trials(self.state)
        for number in stale:
            self.state.trials.discard(number)
        return [self._recorder.read_verdict(n) for n in sorted(stale & self._recorder.closed)]

    def find_best_trials(self) -> list[events.BestTrial]:
        """Return the best trial, or the Pareto front; empty without a feasible trial."""
        return self._recorder.find_best_trials()

    def record_end(self, reason: events.FinishReason, now: float) -> None:
        """Record the reason why the study ended, and how long the study has run."""
        self.record_elapsed(now)
        self._recorder.record_study_end(reason)

    def record_elapsed(self, now: float) -> None:
        """Record how long the study has run until `now`, in seconds since the epoch."""
        started = self.state.started
        if started is not None:
            self._recorder.record_elapsed(started.elapsed_s + max(0.0, now - started.at))

    def record_elapsed_before_restart(self, now: float) -> None:
        """Record how long the study has run when the study is submitted again while it runs.

        Of a study that this optimizer found in the log, what was recorded when the optimizer
        before ended and the time since count: the services may have been away in between.
        """
        if self.recovered_at is None:
            self.record_elapsed(now)
        else:
            since_s = max(0.0, now - self.recovered_at)
            self._recorder.record_elapsed(self._recorder.elapsed_s + since_s)

    def close_sampler(self) -> None:
        """End the sampler."""
        self._supply.close()

    def release(self) -> None:
        """End the sampler and remove the study from memory; pending changes are still recorded."""
        self._supply.close()
        self._recorder.release()


def _make_end(study: str, verdict: events.TrialClosed) -> AttemptEnd:
    trial = OpenTrial(verdict.trial, verdict.attempt, prune_reason=verdict.reason)
    # The other causes are of the verdict, and not of an attempt.
    cause = None if verdict.cause in ("missing_metric", "bad_value") else verdict.cause
    trial.causes = [*verdict.causes, *([cause] if cause else [])]
    return AttemptEnd(study, trial, verdict.state, cause, verdict.values, error=verdict.error)
