"""One Optuna study, kept in step with the ledger.

Every method may be repeated with the same arguments: after a crash the events since the last
commit are applied once more.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

import msgspec
import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from trialbus import events
from trialbus.errors import SpecError
from trialbus_services.optimizer.components import build_pruner, build_sampler
from trialbus_services.optimizer.ledger import Book, Closed, OpenTrial
from trialbus_services.optimizer.objective import aggregation, value_of
from trialbus_services.optimizer.space import suggest

_FOREIGN = "trialbus:foreign"
_SPEC = "trialbus:spec"
_REQUEST = "trialbus:request"
_FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


@dataclass
class Reported:
    """What open trials have reported, by their numbers."""

    #: Values by metric and step, of the objectives' metrics.
    curves: dict[int, dict[str, dict[int, float]]] = field(
        default_factory=dict[int, dict[str, dict[int, float]]]
    )
    #: The newest value of every metric.
    last: dict[int, dict[str, float]] = field(default_factory=dict[int, dict[str, float]])
    #: Trials that were told to stop.
    pruned: set[int] = field(default_factory=set[int])

    def forget(self, number: int) -> None:
        """Forget a trial that ended, or begins again."""
        self.curves.pop(number, None)
        self.last.pop(number, None)
        self.pruned.discard(number)


class _Study(optuna.Study):
    """A study whose sampler may stop it; Optuna's own can be stopped only inside `optimize`."""

    exhausted = False

    def stop(self) -> None:
        """Note that the sampler has nothing left to suggest."""
        self.exhausted = True


class RunningStudy:
    """A study in an Optuna storage, made or continued.

    Args:
        book: What the log says of it. Open trials that the storage does not have are taken out:
            they belong to a study of the same name that was deleted.
        storage: Where it is recorded.
        before: The same study, if it runs already: what its open trials reported is kept.

    Raises:
        SpecError: The specification does not fit Optuna, or the study that is already there.
    """

    def __init__(
        self, book: Book, storage: BaseStorage, before: RunningStudy | None = None
    ) -> None:
        spec = book.spec
        self.spec = spec
        self.failures_in_a_row = 0
        self.last_error: str | None = None
        for objective in spec.objectives:
            aggregation(objective.aggregate, objective.direction)
        self._storage = storage
        self._pruner = build_pruner(spec.pruner)
        optuna.create_study(
            study_name=spec.name, storage=storage, directions=spec.directions, load_if_exists=True
        )
        self._study = _Study(spec.name, storage, pruner=self._pruner)
        self._id = storage.get_study_id_from_name(spec.name)
        self._check_directions()
        self._study.sampler = build_sampler(spec, len(self._study.get_trials(deepcopy=False)))
        self._trial_ids: dict[int, int] = {}
        self.reported = before.reported if before else Reported()
        self._finished: set[int] = set()
        self._counts: Counter[TrialState] = Counter()
        #: Running in the storage when it was opened. Those that the log, read to its end, does not
        #: know were sampled just before a crash and handed to nobody.
        self._unclaimed: list[FrozenTrial] = []
        self._adopt(book)

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
        """Whether no further trial is to be sampled."""
        return self._study.exhausted or self.n_done >= self.spec.n_trials

    def assign(self, request: events.TrialRequested, book: Book) -> events.TrialAssigned | None:
        """Return a trial to be repeated, else a new one, for a request; None if none is left."""
        spec = self.spec
        again = next((trial for trial in book.open.values() if trial.waiting), None)
        if again is not None:
            number, attempt, params = again.number, again.attempt + 1, again.params
        elif self.n_done + len(book.open) < spec.n_trials:
            number, params = self._new_trial(request, book)
            attempt = 0
        else:
            return None
        self.reported.forget(number)
        return events.TrialAssigned(
            study=spec.name,
            trial=number,
            attempt=attempt,
            request=request.request,
            session=request.session,
            params=params,
            seed=spec.seed + number,
            budget=spec.budget,
            worker=request.worker,
            slot=request.slot,
        )

    def restore(self, event: events.EvaluationComplete) -> None:
        """Take in an evaluation that was recorded before a restart."""
        curves = self.reported.curves.setdefault(event.trial, defaultdict(dict))
        for metric in self.spec.metrics:
            if metric in event.metrics:
                curves[metric][event.step] = event.metrics[metric]
        self.reported.last.setdefault(event.trial, {}).update(event.metrics)

    def evaluate(self, event: events.EvaluationComplete) -> events.Prune | None:
        """Record an evaluation and return the prune command, if that is the decision."""
        self.restore(event)
        # Optuna keeps one curve per trial and prunes by it; several objectives have none.
        if len(self.spec.objectives) > 1 or event.trial in self._finished:
            return None
        value = event.metrics.get(self.spec.metrics[0])
        if value is None:
            return None
        trial_id = self._trial_id(event.trial)
        self._storage.set_trial_intermediate_value(trial_id, event.step, value)
        if event.trial in self.reported.pruned:
            return None
        trial = self._storage.get_trial(trial_id)
        if trial.last_step != event.step or not self._pruner.prune(self._study, trial):
            return None
        self.reported.pruned.add(event.trial)
        return events.Prune(
            study=event.study,
            trial=event.trial,
            attempt=event.attempt,
            step=event.step,
            reason=f"{type(self._pruner).__name__}: {self.spec.metrics[0]} {value:g}",
        )

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
        for key, value in attributes.items():
            self._storage.set_trial_user_attr(trial_id, key, value)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self._study.tell(number, values, state)
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

    def _check_directions(self) -> None:
        found = [direction.name.lower() for direction in self._study.directions]
        if found != self.spec.directions:
            raise SpecError(
                "study.objective.direction",
                f"{self.spec.directions} does not fit the study {self.spec.name!r} in the storage, "
                f"which has {found}; use another study.name",
            )

    def _adopt(self, book: Book) -> None:
        trials = self._study.get_trials(deepcopy=False)
        running = [trial for trial in trials if trial.state == TrialState.RUNNING]
        attributes = self._study.user_attrs
        if _FOREIGN not in attributes:
            # Trials that run already are somebody else's; from now on they are ours.
            attributes = {_FOREIGN: [trial.number for trial in running]}
            self._study.set_user_attr(_FOREIGN, attributes[_FOREIGN])
        self._study.set_user_attr(_SPEC, msgspec.to_builtins(self.spec))
        finished = [trial for trial in trials if trial.state in _FINISHED]
        self._counts.update(trial.state for trial in finished)
        self._finished = {trial.number for trial in finished}
        for number in set(book.open) - {trial.number for trial in trials}:
            del book.open[number]
        self._unclaimed = [trial for trial in running if trial.number not in attributes[_FOREIGN]]

    def _new_trial(self, request: events.TrialRequested, book: Book) -> tuple[int, dict[str, Any]]:
        trial = self._adopt_orphan(request, book) or self._study.ask()
        params = suggest(trial, self.spec.params)
        trial.set_user_attr(_REQUEST, request.request)
        return trial.number, params

    def _adopt_orphan(self, request: events.TrialRequested, book: Book) -> optuna.Trial | None:
        """Return a trial that was sampled before a crash and handed to nobody, if there is one."""
        claimed = self._finished | set(book.open)
        self._unclaimed = orphans = [
            trial for trial in self._unclaimed if trial.number not in claimed
        ]
        if not orphans:
            return None
        same = (trial for trial in orphans if trial.user_attrs.get(_REQUEST) == request.request)
        orphan = next(same, orphans[0])
        return optuna.Trial(self._study, self._trial_id(orphan.number))

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
