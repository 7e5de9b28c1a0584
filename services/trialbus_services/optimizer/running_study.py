"""One Optuna study, kept in step with the ledger.

Every method may be repeated with the same arguments: after a crash the events since the last
commit are applied once more. Nothing here waits: the storage answers from memory, the sampler
suggests in a process of its own, and the pruner decides from what it has seen.
"""

from __future__ import annotations

import json
import logging
import math
import warnings
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from typing import Any

import msgspec
import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from trialbus.messages import events
from trialbus_services.optimizer.attributes import (
    ATTEMPT,
    END,
    ENQUEUED,
    ENQUEUED_BY,
    ERROR,
    FOREIGN,
    LATE,
    METRICS,
    ORIGIN,
    PRUNED_BY,
    REQUEST,
    SLOT,
    SPEC,
    STATE,
    SUBMISSION,
    WORKER,
)
from trialbus_services.optimizer.convergence import Progress
from trialbus_services.optimizer.distributions import check_directions, check_space
from trialbus_services.optimizer.evaluations import OpenEvaluations
from trialbus_services.optimizer.failures import Failures
from trialbus_services.optimizer.latency import Latency
from trialbus_services.optimizer.ledger import Book
from trialbus_services.optimizer.outcome import Judge
from trialbus_services.optimizer.pruning import StudyPruner
from trialbus_services.optimizer.registry import build_pruner, build_sampler
from trialbus_services.optimizer.sampling import Suggester
from trialbus_services.optimizer.storage_writer import WriteBehind
from trialbus_services.optimizer.trial_states import AttemptEnd, OpenTrial
from trialbus_services.optimizer.trial_supply import create_trial

logger = logging.getLogger(__name__)

_ARTIFACTS = "artifacts:"  # optuna.artifacts._upload.ARTIFACTS_ATTR_PREFIX
_MAX_METRICS = 1000


class SamplerError(Exception):
    """A sampler failed; the message says how."""


class RunningStudy:
    """A study in an Optuna storage, made or continued.

    Args:
        book: What the log says of it.
        storage: Where it is recorded.
        ahead: Suggestions that are kept ready.
        sampling: Takes the seconds that each suggestion took to compute.
        on_ready: Called, from another thread, when a suggestion is ready.
        before: The same study, if it runs already: what its open trials reported is kept.

    Raises:
        SpecError: The specification does not fit Optuna, or the study that is already there.
    """

    def __init__(
        self,
        book: Book,
        storage: WriteBehind,
        *,
        ahead: int,
        sampling: Latency,
        on_ready: Callable[[], None],
        before: RunningStudy | None = None,
    ) -> None:
        spec = book.spec
        self.spec = spec
        self.failures = Failures(spec)
        self._judge = Judge(spec)
        build_sampler(spec)  # refused here, before a process is started for it
        pruner = build_pruner(spec.pruner)
        self._storage = storage
        self._id = storage.adopt(
            spec.name, [StudyDirection[direction.upper()] for direction in spec.directions]
        )
        self._study = optuna.Study(spec.name, storage, optuna.samplers.RandomSampler(), pruner)
        found = [direction.name.lower() for direction in self._study.directions]
        check_directions(spec, found)
        self.progress = Progress(spec)
        self.reported = before.reported if before else OpenEvaluations()
        self._finished: set[int] = set()
        #: Numbers of open trials for the ledger to forget. Those that the storage does not have
        #: belong to a study of the same name that was deleted; those that wait there for no other
        #: attempt were abandoned when the study ended before.
        self.stale_trials: set[int] = set()
        self._counts: Counter[TrialState] = Counter()
        #: Running in the storage when it was opened. Those that the log, read to its end, does not
        #: know were suggested just before a crash and handed to nobody.
        self._unclaimed: list[FrozenTrial] = []
        self._trial_ids: dict[int, int] = {}
        self._enqueued: set[str] = set()
        self._adopt(book)
        self._enqueue()
        trials = self._study.get_trials(deepcopy=False)
        self._driver = StudyPruner(spec, self._study, trials, self._trial)
        self._metrics = frozenset({*spec.metrics, self._driver.metric})
        if before is not None:
            before.end()
        self._ahead = ahead
        self._sampling = sampling
        self._on_ready = on_ready
        self._asked = 0
        self.sampler = self._start_sampler(book)

    @property
    def counts(self) -> events.TrialCounts:
        """Finished trials by state, over the study's whole life."""
        return events.TrialCounts(
            complete=self._counts[TrialState.COMPLETE],
            pruned=self._counts[TrialState.PRUNED],
            failed=self._counts[TrialState.FAIL],
        )

    @property
    def n_done(self) -> int:
        """Number of finished trials."""
        return sum(self._counts.values())

    @property
    def exhausted(self) -> bool:
        """Whether no further trial is to be suggested."""
        return self.sampler.exhausted or self.n_done >= self.spec.n_trials

    def end(self) -> None:
        """Let go of the sampler's process."""
        self.sampler.close()

    def release(self) -> None:
        """Let go of everything; what is not recorded yet still will be."""
        self.end()
        self._storage.release(self._id)

    def assign(self, request: events.TrialRequested, book: Book) -> events.TrialAssigned | None:
        """Return a trial for a request: one to be repeated, else a new one.

        Returns:
            None if no trial is left, or the sampler has none ready: ask again when it has.
        """
        again = next((trial for trial in book.trials.open.values() if trial.is_waiting), None)
        if again is not None:
            trial, attempt = self._trial(again.number), again.attempt + 1
        elif self.n_done + len(book.trials.open) < self.spec.n_trials:
            new = self._new_trial(request, book)
            if new is None:
                return None
            trial, attempt = new, 0
        else:
            return None
        self.reported.forget(trial.number)
        self._driver.begin(trial)
        return events.TrialAssigned(
            study=self.spec.name,
            trial=trial.number,
            attempt=attempt,
            request=request.request,
            session=request.session,
            params=trial.params,
            seed=self.spec.seed + trial.number,
            budget=self.spec.budget,
            evaluation=self.spec.evaluation,
            config=self.spec.config,
            config_name=self.spec.config_name,
            worker=request.worker,
            slot=request.slot,
        )

    def restore(self, event: events.EvaluationComplete) -> None:
        """Take in an evaluation of an open trial that was recorded before a restart."""
        metrics = self._heed(event.metrics)
        self.reported.take(event.trial, event.step, metrics, self._metrics)
        value = metrics.get(self._driver.metric)
        if value is not None:
            self._driver.restore(event.trial, event.step, value)

    def evaluate(self, event: events.EvaluationComplete) -> events.Prune | None:
        """Record an evaluation and return the prune command, if that is the decision."""
        if event.trial in self._finished:
            return None
        if len(event.metrics) > _MAX_METRICS:
            raise ValueError(f"{len(event.metrics)} metrics, at most {_MAX_METRICS} are taken")
        metrics = self._heed(event.metrics)
        self.reported.take(event.trial, event.step, metrics, self._metrics)
        value = metrics.get(self.spec.metrics[0])
        # Optuna keeps one curve of a trial; with several objectives it has none.
        if value is not None and len(self.spec.objectives) == 1:
            trial_id = self._trial_id(event.trial)
            self._storage.set_trial_intermediate_value(trial_id, event.step, value)
        reason = self._reason_to_prune(event.trial, event.step, metrics)
        if reason is None or event.trial in self.reported.pruned:
            return None
        self.reported.pruned.add(event.trial)
        return events.Prune(
            study=event.study,
            trial=event.trial,
            attempt=event.attempt,
            step=event.step,
            reason=reason,
        )

    def note_late(self, event: events.EvaluationComplete, offset: int) -> None:
        """Note an evaluation of an attempt that was given up, or of a trial that has ended."""
        if event.trial not in self._finished and event.trial not in self._trial_ids:
            return
        trial_id = self._trial_id(event.trial)
        noted = self._storage.get_trial(trial_id).user_attrs.get(LATE, {"count": 0, "offset": -1})
        if offset > noted["offset"]:
            late = {"count": noted["count"] + 1, "offset": offset}
            self._storage.amend_trial_user_attr(trial_id, LATE, late)

    def log_artifact(self, event: events.ArtifactLogged) -> None:
        """Note that a trial kept a file, as `optuna.artifacts.upload_artifact` does."""
        if event.trial not in self._finished and event.trial not in self._trial_ids:
            return
        meta = {
            "artifact_id": event.artifact,
            "filename": event.filename,
            "mimetype": event.mimetype,
            "encoding": event.encoding,
        }
        key = f"{_ARTIFACTS}{event.artifact}"
        self._storage.amend_trial_system_attr(self._trial_id(event.trial), key, json.dumps(meta))

    def enqueue(self, event: events.Enqueue) -> None:
        """Let a trial wait with params that somebody wants; the study's space has them."""
        if event.enqueue in self._enqueued:
            return
        self._enqueued.add(event.enqueue)
        attributes = {ENQUEUED: event.enqueue} | ({ENQUEUED_BY: event.by} if event.by else {})
        self._study.enqueue_trial(event.params, user_attrs=attributes)
        waiting = self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        self.sampler.enqueue(
            next(t for t in waiting if t.user_attrs.get(ENQUEUED) == event.enqueue)
        )

    def close(self, end: AttemptEnd) -> None:
        """Tell Optuna how a trial ended."""
        number = end.trial.number
        if number in self._finished:
            return
        reported = self.reported
        last_metrics = reported.last.get(number, {})
        outcome = self._judge.outcome(
            end, reported.curves.get(number, {}), last_metrics, self.progress.worst
        )
        state, values = outcome.state, outcome.values
        trial_id = self._trial_id(number)
        attributes: dict[str, Any] = {
            ATTEMPT: end.trial.attempt,
            WORKER: end.trial.worker,
            SLOT: end.trial.slot,
            METRICS: last_metrics,
            **self._driver.curve(reported.curve(number, self._driver.metric)),
        }
        if end.trial.pruned_by:
            attributes[PRUNED_BY] = end.trial.pruned_by
        if state is TrialState.FAIL:
            attributes |= {
                STATE: "lost" if end.cause == "lost" else "failed",
                ERROR: outcome.error,
            }
        with self._storage.atomic(), warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            for key, value in attributes.items():
                self._storage.set_trial_user_attr(trial_id, key, value)
            for key, violation in outcome.constraints.items():
                self._storage.set_trial_system_attr(trial_id, f"constraints:{key}", violation)
            self._study.tell(number, values, state)
        curve = self._storage.get_trial(trial_id).intermediate_values
        last = max(curve.items()) if curve else None
        self.sampler.tell(number, state, values, last, outcome.constraints)
        self._driver.finish(number, state)
        self.progress.take(state, values, feasible=outcome.feasible)
        self._finished.add(number)
        self._counts[state] += 1
        self.failures.take(number, state, outcome.error)
        reported.forget(number)

    def conclude(self, reason: str) -> None:
        """Note that it ended, and why."""
        self._study.set_user_attr(END, reason)

    def abandon(self, trial: OpenTrial, reason: str) -> None:
        """Fail a trial that waits for another attempt which will not come."""
        self.close(AttemptEnd(self.spec.name, trial, "lost", error=reason))

    def best_trials(self) -> list[events.BestTrial]:
        """Return the best trial, or the Pareto front; empty without one that is feasible."""
        try:
            several = len(self.spec.objectives) > 1
            best = self._study.best_trials if several else [self._study.best_trial]
        except ValueError:
            return []
        return [
            events.BestTrial(number=t.number, values=list(t.values), params=t.params) for t in best
        ]

    def _heed(self, metrics: dict[str, float]) -> dict[str, float]:
        """Return the metrics that count."""
        if self.spec.nan != "ignore":
            return metrics
        return {
            name: value
            for name, value in metrics.items()
            if math.isfinite(value) or name not in self._metrics
        }

    def _reason_to_prune(self, number: int, step: int, metrics: dict[str, float]) -> str | None:
        if self.spec.nan == "prune":
            for name in self._metrics & metrics.keys():
                if not math.isfinite(metrics[name]):
                    return f"study.nan=prune: {name} {metrics[name]:g}"
        value = metrics.get(self._driver.metric)
        if value is None:
            return None
        prune = self._driver.report(number, step, value)
        for key, attribute in self._driver.attributes(number).items():
            self._storage.set_trial_system_attr(self._trial_id(number), key, attribute)
        pruner = type(self._study.pruner).__name__
        return f"{pruner}: {self._driver.metric} {value:g}" if prune else None

    def _adopt(self, book: Book) -> None:
        """Take in the trials that the storage has."""
        trials = self._study.get_trials(deepcopy=False)
        running = [trial for trial in trials if trial.state == TrialState.RUNNING]
        attributes = self._study.user_attrs
        if FOREIGN not in attributes:
            # Trials that run already are somebody else's; from now on they are ours.
            attributes = {FOREIGN: [trial.number for trial in running]}
            self._study.set_user_attr(FOREIGN, attributes[FOREIGN])
        check_space(self.spec, trials)
        self._study.set_user_attr(SPEC, msgspec.to_builtins(self.spec))
        if book.origin:
            self._study.set_user_attr(ORIGIN, book.origin)
        if attributes.get(END) is not None:
            self._study.set_user_attr(END, None)
        for trial in trials:
            self._trial_ids[trial.number] = self._storage.get_trial_id_from_study_id_trial_number(
                self._id, trial.number
            )
            self._enqueued.add(trial.user_attrs.get(ENQUEUED, ""))
            if trial.state.is_finished():
                self._finished.add(trial.number)
                self._counts[trial.state] += 1
        ended = [t for t in trials if t.state.is_finished() and t.datetime_complete]
        ended.sort(key=lambda trial: trial.datetime_complete or datetime.min)  # noqa: DTZ901
        submission, n_failed = attributes.get(SUBMISSION, ("", 0))
        if submission != book.submission:
            n_failed = self._counts[TrialState.FAIL]
            self._study.set_user_attr(SUBMISSION, [book.submission, n_failed])
        self.failures.restore(ended, n_failed)
        for trial in ended:
            feasible = all(violation <= 0 for violation in trial.constraints.values())
            self.progress.take(trial.state, trial.values, feasible=feasible)
        states = {trial.number: trial.state for trial in trials}
        self.stale_trials = {
            number
            for number, trial in book.trials.open.items()
            if number not in states or (trial.is_waiting and states[number].is_finished())
        }
        self._unclaimed = [trial for trial in running if trial.number not in attributes[FOREIGN]]

    def _enqueue(self) -> None:
        """Let the trials that the specification names wait, those that are not there yet."""
        for params in self.spec.enqueue:
            self._study.enqueue_trial(params, skip_if_exists=True)

    def _new_trial(self, request: events.TrialRequested, book: Book) -> FrozenTrial | None:
        orphan = self._adopt_orphan(request, book)
        if orphan is not None:
            return orphan
        suggestion = self.sampler.take()
        if suggestion is None:
            return None
        self._asked -= 1
        trial_id = create_trial(
            self._storage, self._id, suggestion, request.request, self._trial_id
        )
        trial = self._storage.get_trial(trial_id)
        self._trial_ids[trial.number] = trial_id
        self.sampler.claim(suggestion, trial.number)
        return trial

    def want(self, n_waiting: int, book: Book) -> None:
        """Let the sampler suggest for so many requests that wait.

        Raises:
            SamplerError: It failed.
        """
        if self.sampler.error is not None:
            raise SamplerError(self.sampler.error)
        if not self.sampler.alive:
            logger.warning("the sampler of %r was killed; it is started again", self.spec.name)
            self.sampler.close()
            self._asked = 0
            self.sampler = self._start_sampler(book)
        left = self.spec.n_trials - self.n_done - len(book.trials.open)
        for _ in range(min(n_waiting, left) - self._asked):
            self._asked += 1
            self.sampler.request()

    def _start_sampler(self, book: Book) -> Suggester:
        return Suggester(
            self.spec,
            self._study.get_trials(deepcopy=False),
            self._storage.get_study_system_attrs(self._id),
            ahead=self._ahead,
            latency=self._sampling,
            on_ready=self._on_ready,
        )

    def _adopt_orphan(self, request: events.TrialRequested, book: Book) -> FrozenTrial | None:
        """Return a trial that was made before a crash and handed to nobody, if there is one."""
        if not self._unclaimed:
            return None
        claimed = self._finished | set(book.trials.open)
        self._unclaimed = orphans = [
            trial for trial in self._unclaimed if trial.number not in claimed
        ]
        same = (trial for trial in orphans if trial.user_attrs.get(REQUEST) == request.request)
        return next(same, orphans[0] if orphans else None)

    def _trial(self, number: int) -> FrozenTrial:
        return self._storage.get_trial(self._trial_id(number))

    def _trial_id(self, number: int) -> int:
        if number not in self._trial_ids:
            self._trial_ids[number] = self._storage.get_trial_id_from_study_id_trial_number(
                self._id, number
            )
        return self._trial_ids[number]
