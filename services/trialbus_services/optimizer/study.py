"""One Optuna study, kept in step with the ledger.

Every method may be repeated with the same arguments: after a crash the events since the last
commit are applied once more. Nothing here waits: the storage answers from memory, the sampler
suggests in a process of its own, and the pruner decides from what it has seen.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec
import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from trialbus import events
from trialbus.errors import SpecError
from trialbus_services.optimizer.components import build_pruner, build_sampler
from trialbus_services.optimizer.ledger import Book, Closed, OpenTrial
from trialbus_services.optimizer.objective import aggregation, value_of
from trialbus_services.optimizer.parents import renumbered
from trialbus_services.optimizer.pruning import build_pruning
from trialbus_services.optimizer.recording import WriteBehind
from trialbus_services.optimizer.sampling import Suggester, Suggestion

logger = logging.getLogger(__name__)

_FOREIGN = "trialbus:foreign"
_SPEC = "trialbus:spec"
_REQUEST = "trialbus:request"
_LATE = "trialbus:late"
_MAX_METRICS = 1000


@dataclass
class Reported:
    """What open trials have reported, by their numbers."""

    #: Values by metric and step, of the metrics that the study looks at.
    curves: dict[int, dict[str, dict[int, float]]] = field(
        default_factory=dict[int, dict[str, dict[int, float]]]
    )
    #: The newest value of every metric.
    last: dict[int, dict[str, float]] = field(default_factory=dict[int, dict[str, float]])
    #: Trials that were told to stop.
    pruned: set[int] = field(default_factory=set[int])

    def take(self, event: events.EvaluationComplete, metrics: frozenset[str]) -> None:
        """Take in an evaluation."""
        curves = self.curves.setdefault(event.trial, defaultdict(dict))
        for metric in metrics & event.metrics.keys():
            curves[metric][event.step] = event.metrics[metric]
        self.last.setdefault(event.trial, {}).update(event.metrics)

    def forget(self, number: int) -> None:
        """Forget a trial that ended, or begins again."""
        self.curves.pop(number, None)
        self.last.pop(number, None)
        self.pruned.discard(number)


class SamplerError(Exception):
    """A sampler failed; the message says how."""


class RunningStudy:
    """A study in an Optuna storage, made or continued.

    Args:
        book: What the log says of it. Open trials that the storage does not have are taken out:
            they belong to a study of the same name that was deleted.
        storage: Where it is recorded.
        ahead: Suggestions that are kept ready.
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
        on_ready: Callable[[], None],
        before: RunningStudy | None = None,
    ) -> None:
        spec = book.spec
        self.spec = spec
        self.failures_in_a_row = 0
        self.last_error: str | None = None
        for objective in spec.objectives:
            aggregation(objective.aggregate, objective.direction)
        build_sampler(spec)  # refused here, before a process is started for it
        pruner = build_pruner(spec.pruner)
        self._storage = storage
        self._id = storage.adopt(
            spec.name, [StudyDirection[direction.upper()] for direction in spec.directions]
        )
        self._study = optuna.Study(spec.name, storage, optuna.samplers.RandomSampler(), pruner)
        self._check_directions()
        self._metrics = frozenset(spec.metrics)
        self._pruner_name = type(pruner).__name__
        self._pruning = build_pruning(
            pruner,
            study_name=spec.name,
            maximize=spec.objectives[0].direction == "maximize",
            ask=self._ask_pruner,
        )
        self.reported = before.reported if before else Reported()
        self._finished: set[int] = set()
        self._counts: Counter[TrialState] = Counter()
        #: Running in the storage when it was opened. Those that the log, read to its end, does not
        #: know were suggested just before a crash and handed to nobody.
        self._unclaimed: list[FrozenTrial] = []
        self._trial_ids: dict[int, int] = {}
        self._adopt(book)
        if before is not None:
            before.end()
        self._ahead = ahead
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
        again = next((trial for trial in book.open.values() if trial.waiting), None)
        if again is not None:
            number, attempt, params = again.number, again.attempt + 1, again.params
        elif self.n_done + len(book.open) < self.spec.n_trials:
            trial = self._new_trial(request, book)
            if trial is None:
                return None
            number, attempt, params = trial.number, 0, trial.params
        else:
            return None
        self.reported.forget(number)
        self._pruning.forget(number)
        return events.TrialAssigned(
            study=self.spec.name,
            trial=number,
            attempt=attempt,
            request=request.request,
            session=request.session,
            params=params,
            seed=self.spec.seed + number,
            budget=self.spec.budget,
            worker=request.worker,
            slot=request.slot,
        )

    def restore(self, event: events.EvaluationComplete) -> None:
        """Take in an evaluation of an open trial that was recorded before a restart."""
        self.reported.take(event, self._metrics)

    def evaluate(self, event: events.EvaluationComplete) -> events.Prune | None:
        """Record an evaluation and return the prune command, if that is the decision."""
        if event.trial in self._finished:
            return None
        if len(event.metrics) > _MAX_METRICS:
            raise ValueError(f"{len(event.metrics)} metrics, at most {_MAX_METRICS} are taken")
        self.reported.take(event, self._metrics)
        # Optuna keeps one curve per trial and prunes by it; several objectives have none.
        value = event.metrics.get(self.spec.metrics[0])
        if value is None or len(self.spec.objectives) > 1:
            return None
        trial_id = self._trial_id(event.trial)
        self._storage.set_trial_intermediate_value(trial_id, event.step, value)
        prune = self._pruning.report(event.trial, event.step, value)
        for key, attribute in self._pruning.attributes(event.trial).items():
            self._storage.set_trial_system_attr(trial_id, key, attribute)
        if not prune or event.trial in self.reported.pruned:
            return None
        self.reported.pruned.add(event.trial)
        return events.Prune(
            study=event.study,
            trial=event.trial,
            attempt=event.attempt,
            step=event.step,
            reason=f"{self._pruner_name}: {self.spec.metrics[0]} {value:g}",
        )

    def note_late(self, event: events.EvaluationComplete, offset: int) -> None:
        """Note an evaluation of an attempt that was given up, or of a trial that has ended."""
        if event.trial not in self._finished and event.trial not in self._trial_ids:
            return
        trial_id = self._trial_id(event.trial)
        noted = self._storage.get_trial(trial_id).user_attrs.get(_LATE, {"count": 0, "offset": -1})
        if offset > noted["offset"]:
            late = {"count": noted["count"] + 1, "offset": offset}
            self._storage.amend_trial_user_attr(trial_id, _LATE, late)

    def close(self, closed: Closed) -> None:
        """Tell Optuna how a trial ended."""
        number = closed.trial.number
        if number in self._finished:
            return
        state, values, error = self._result(closed)
        trial_id = self._trial_id(number)
        attributes: dict[str, Any] = {
            "trialbus:attempt": closed.trial.attempt,
            "trialbus:worker": closed.trial.worker,
            "trialbus:slot": closed.trial.slot,
            "trialbus:metrics": self.reported.last.get(number, {}),
        }
        if state is TrialState.FAIL:
            attributes |= {
                "trialbus:state": "lost" if closed.cause == "lost" else "failed",
                "trialbus:error": error,
            }
        with self._storage.atomic(), warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            for key, value in attributes.items():
                self._storage.set_trial_user_attr(trial_id, key, value)
            self._study.tell(number, values, state)
        curve = self._storage.get_trial(trial_id).intermediate_values
        last = max(curve.items()) if curve else None
        self.sampler.tell(number, state, values, last)
        self._pruning.finish(number, state)
        self._finished.add(number)
        self._counts[state] += 1
        self.failures_in_a_row = self.failures_in_a_row + 1 if state is TrialState.FAIL else 0
        self.last_error = error or self.last_error
        self.reported.forget(number)

    def abandon(self, trial: OpenTrial, reason: str) -> None:
        """Fail a trial that waits for another attempt which will not come."""
        self.close(Closed(self.spec.name, trial, "lost", error=reason))

    def best_trials(self) -> list[events.BestTrial]:
        """Return the best trial, or the Pareto front; empty without a complete trial."""
        if not self._counts[TrialState.COMPLETE]:
            return []
        best = (
            [self._study.best_trial] if len(self.spec.objectives) == 1 else self._study.best_trials
        )
        return [
            events.BestTrial(number=t.number, values=list(t.values), params=t.params) for t in best
        ]

    def _ask_pruner(self, number: int) -> bool:
        trial = self._storage.get_trial(self._trial_id(number))
        return self._study.pruner.prune(self._study, trial)

    def _check_directions(self) -> None:
        found = [direction.name.lower() for direction in self._study.directions]
        if found != self.spec.directions:
            raise SpecError(
                "study.objective.direction",
                f"{self.spec.directions} does not fit the study {self.spec.name!r} in the storage, "
                f"which has {found}; use another study.name",
            )

    def _adopt(self, book: Book) -> None:
        """Take in the trials that the storage has."""
        trials = self._study.get_trials(deepcopy=False)
        running = [trial for trial in trials if trial.state == TrialState.RUNNING]
        attributes = self._study.user_attrs
        if _FOREIGN not in attributes:
            # Trials that run already are somebody else's; from now on they are ours.
            attributes = {_FOREIGN: [trial.number for trial in running]}
            self._study.set_user_attr(_FOREIGN, attributes[_FOREIGN])
        self._study.set_user_attr(_SPEC, msgspec.to_builtins(self.spec))
        for trial in trials:
            self._trial_ids[trial.number] = self._storage.get_trial_id_from_study_id_trial_number(
                self._id, trial.number
            )
            self._pruning.load(trial)
            if trial.state.is_finished():
                self._finished.add(trial.number)
                self._counts[trial.state] += 1
        for number in set(book.open) - set(self._trial_ids):
            del book.open[number]
        self._unclaimed = [trial for trial in running if trial.number not in attributes[_FOREIGN]]

    def _new_trial(self, request: events.TrialRequested, book: Book) -> FrozenTrial | None:
        orphan = self._adopt_orphan(request, book)
        if orphan is not None:
            return orphan
        suggestion = self.sampler.take()
        if suggestion is None:
            return None
        self._asked -= 1
        trial_id = self._create(suggestion, request)
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
        left = self.spec.n_trials - self.n_done - len(book.open)
        for _ in range(min(n_waiting, left) - self._asked):
            self._asked += 1
            self.sampler.request()

    def _start_sampler(self, book: Book) -> Suggester:
        return Suggester(
            self.spec,
            self._study.get_trials(deepcopy=False),
            self._storage.get_study_system_attrs(self._id),
            ahead=self._ahead,
            on_ready=self._on_ready,
        )

    def _create(self, suggestion: Suggestion, request: events.TrialRequested) -> int:
        """Make the trial of a suggestion, seen in the database whole or not at all."""
        storage = self._storage
        user_attrs = {**suggestion.user_attrs, _REQUEST: request.request}
        with storage.atomic():
            for key, value in renumbered(suggestion.study_attrs, self._trial_id).items():
                storage.set_study_system_attr(self._id, key, value)
            if suggestion.waiting is None:
                return storage.create_new_trial(
                    self._id,
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
            trial_id = self._trial_id(suggestion.waiting)
            storage.set_trial_state_values(trial_id, TrialState.RUNNING)
            for name, distribution in suggestion.distributions.items():
                value = distribution.to_internal_repr(suggestion.params[name])
                storage.set_trial_param(trial_id, name, value, distribution)
            for key, value in user_attrs.items():
                storage.set_trial_user_attr(trial_id, key, value)
            for key, value in suggestion.system_attrs.items():
                storage.set_trial_system_attr(trial_id, key, value)
            return trial_id

    def _adopt_orphan(self, request: events.TrialRequested, book: Book) -> FrozenTrial | None:
        """Return a trial that was made before a crash and handed to nobody, if there is one."""
        if not self._unclaimed:
            return None
        claimed = self._finished | set(book.open)
        self._unclaimed = orphans = [
            trial for trial in self._unclaimed if trial.number not in claimed
        ]
        same = (trial for trial in orphans if trial.user_attrs.get(_REQUEST) == request.request)
        return next(same, orphans[0] if orphans else None)

    def _trial_id(self, number: int) -> int:
        if number not in self._trial_ids:
            self._trial_ids[number] = self._storage.get_trial_id_from_study_id_trial_number(
                self._id, number
            )
        return self._trial_ids[number]

    def _result(self, closed: Closed) -> tuple[TrialState, list[float] | None, str | None]:
        match closed.cause:
            case "pruned":
                return TrialState.PRUNED, None, None
            case "complete":
                return self._values(closed)
            case _:
                return TrialState.FAIL, None, closed.error or "the trainer gave no reason"

    def _values(self, closed: Closed) -> tuple[TrialState, list[float] | None, str | None]:
        objectives = self.spec.objectives
        curves = self.reported.curves.get(closed.trial.number, {})
        values: list[float | None] = (
            [value_of(curves.get(objective.metric, {}), objective) for objective in objectives]
            if closed.values is None
            else list(closed.values)
        )
        error = None
        if len(values) != len(objectives):
            error = f"complete() gave {len(values)} values, study.objective has {len(objectives)}"
        for value, objective in zip(values, objectives, strict=False):
            if value is None:
                seen = (
                    ", ".join(sorted(self.reported.last.get(closed.trial.number, {}))) or "nothing"
                )
                error = (
                    f"study.objective.metric {objective.metric!r} has no value for aggregate "
                    f"{objective.aggregate!r}; the trainer reported: {seen}"
                )
            elif math.isnan(value):
                error = f"study.objective.metric {objective.metric!r} is NaN"
        if error is not None:
            return TrialState.FAIL, None, error
        return TrialState.COMPLETE, [value for value in values if value is not None], None
