"""TrialSupply: new trials of a study, from the sampler and from the storage."""

from __future__ import annotations

import logging
from collections.abc import Callable, Container, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol, TypeAlias

from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from trialbus.errors import TrialbusError
from trialbus.messages import events
from trialbus.study.spec import StudySpec
from trialbus_services.optimizer.attributes import (
    ENQUEUED,
    ENQUEUED_BY,
    METRICS,
    REQUEST,
    REUSED,
    SKIPPED,
)
from trialbus_services.optimizer.define_by_run import make_suggestions
from trialbus_services.optimizer.genetic_parents import renumber_parents
from trialbus_services.optimizer.outcome import Outcome
from trialbus_services.optimizer.sampling.messages import Suggestion
from trialbus_services.optimizer.study_recorder import StudyRecorder

logger = logging.getLogger(__name__)

_MAX_DEATHS = 3  # of a sampler's process in a row, without a suggestion in between


class SamplerError(TrialbusError):
    """A sampler failed; the message has the sampler's error."""


class Sampler(Protocol):
    """The sampler of a study; `sampling.Suggester` is an implementation. No method waits."""

    error: str | None

    @property
    def is_alive(self) -> bool:
        """Whether the sampler runs."""
        ...

    @property
    def is_exhausted(self) -> bool:
        """Whether the sampler has no more suggestions."""
        ...

    def request(self) -> None:
        """Request another suggestion."""
        ...

    def take_suggestion(self) -> Suggestion | None:
        """Return a requested suggestion; None if no suggestion is ready."""
        ...

    def take_skipped(self) -> list[tuple[int, str]]:
        """Return the waiting trials that are not going to run, with the reason, once each."""
        ...

    def assign_number(self, suggestion: Suggestion, number: int) -> None:
        """Assign the number of the new trial to the suggestion that the trial was created from."""
        ...

    def tell(
        self,
        number: int,
        state: TrialState,
        values: Sequence[float] | None,
        last: tuple[int, float] | None,
        constraints: Mapping[str, float] | None = None,
    ) -> None:
        """Tell the sampler how a trial ended."""
        ...

    def request_param(self, number: int, name: str, distribution: BaseDistribution) -> None:
        """Request the value of a param of a running trial."""
        ...

    def tell_param(
        self, number: int, name: str, distribution: BaseDistribution, value: Any
    ) -> None:
        """Tell the sampler the value of a param that a running trial uses."""
        ...

    def take_params(self) -> list[tuple[int, str, Any, str | None]]:
        """Return trial, name, value and error of the params suggested since the last call."""
        ...

    def enqueue(self, trial: FrozenTrial) -> None:
        """Tell the sampler that a waiting trial was added to the study."""
        ...

    def close(self) -> None:
        """End the sampler."""
        ...


StartSampler: TypeAlias = Callable[[StudySpec, Sequence[FrozenTrial], Mapping[str, Any]], Sampler]
"""Starts the sampler of a study from its specification, trials and system attributes."""


class TrialSupply:
    """Supplies a study with new trials.

    A trial that a crash left in the storage comes first, then trials that were enqueued, then
    suggestions of the sampler.

    Args:
        spec: Specification of the study.
        recorder: Record of the study.
        start_sampler: Starts the study's sampler, and starts it again if it was killed.
    """

    def __init__(
        self, spec: StudySpec, recorder: StudyRecorder, start_sampler: StartSampler
    ) -> None:
        self._spec = spec
        self._recorder = recorder
        self._start = start_sampler
        trials = recorder.study.get_trials(deepcopy=False)
        self._enqueued = {trial.user_attrs.get(ENQUEUED, "") for trial in trials}
        #: Trials that ran in the storage when the study was opened. A trial that the log, read to
        #: its end, does not assign was created just before a crash and handed to nobody.
        self._running = recorder.read_running_trials()
        self._n_requested = 0
        self._n_deaths = 0
        self._sampler = self._start_sampler()

    @property
    def is_exhausted(self) -> bool:
        """Whether the sampler has no more suggestions, and no crash left a trial to hand out."""
        if not self._sampler.is_exhausted:
            return False
        return all(trial.number in self._recorder.closed for trial in self._running)

    def request(self, n_trials: int) -> None:
        """Request suggestions until `n_trials` suggestions are requested and not taken.

        Args:
            n_trials: Number of trials that are needed.

        Raises:
            SamplerError: The sampler failed.
        """
        self.revive()
        self._record_skipped_trials()
        for _ in range(n_trials - self._n_requested):
            self._n_requested += 1
            self._sampler.request()

    def revive(self) -> bool:
        """Start the sampler again, and return true, if its process was killed.

        Raises:
            SamplerError: The sampler failed.
        """
        if self._sampler.error is not None:
            raise SamplerError(self._sampler.error)
        if self._sampler.is_alive:
            return False
        self._n_deaths += 1
        if self._n_deaths > _MAX_DEATHS:
            raise SamplerError(
                f"the process of the sampler {self._spec.sampler.type} ended "
                f"{self._n_deaths} times in a row without a suggestion or an error"
            )
        logger.warning("the sampler of %r was killed; it is started again", self._spec.name)
        self._sampler.close()
        self._n_requested = 0
        self._sampler = self._start_sampler()
        return True

    def request_param(self, number: int, name: str, distribution: BaseDistribution) -> None:
        """Request the value of a param of a running trial, which `take_params` returns.

        Raises:
            ValueError: The sampler does not know the trial.
        """
        self._sampler.request_param(number, name, distribution)

    def tell_param(
        self, number: int, name: str, distribution: BaseDistribution, value: Any
    ) -> None:
        """Tell the sampler the value of a param that a running trial uses."""
        self._sampler.tell_param(number, name, distribution, value)

    def take_params(self) -> list[tuple[int, str, Any, str | None]]:
        """Return trial, name, value and error of the params suggested since the last call."""
        answers = self._sampler.take_params()
        self._n_deaths = 0 if answers else self._n_deaths
        return answers

    def supply_trial(
        self, request: events.TrialRequested, assigned: Container[int]
    ) -> FrozenTrial | None:
        """Return a new trial for a request; None while the sampler has no suggestion ready.

        The trial is complete if it got the values of an earlier trial with the same params.

        Args:
            request: The request.
            assigned: Numbers of the trials that were handed out and are open.
        """
        orphan = self._find_orphan(request, assigned)
        if orphan is not None:
            return orphan
        suggestion = self._sampler.take_suggestion()
        if suggestion is None:
            return None
        self._n_requested -= 1
        self._n_deaths = 0
        trial = self._recorder.add_trial(self._create_trial(suggestion, request.request))
        self._sampler.assign_number(suggestion, trial.number)
        return trial

    def enqueue(self, event: events.Enqueue) -> None:
        """Let a trial with params of the study's search space wait in the study."""
        if event.enqueue in self._enqueued:
            return
        self._enqueued.add(event.enqueue)
        study = self._recorder.study
        attributes = {ENQUEUED: event.enqueue} | ({ENQUEUED_BY: event.by} if event.by else {})
        study.enqueue_trial(event.params, user_attrs=attributes)
        waiting = study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        self._sampler.enqueue(
            next(trial for trial in waiting if trial.user_attrs.get(ENQUEUED) == event.enqueue)
        )

    def finish(self, number: int, outcome: Outcome) -> None:
        """Tell the sampler how a trial ended, after the end is recorded."""
        curve = self._recorder.get_trial(number).intermediate_values
        last = max(curve.items()) if curve else None
        self._sampler.tell(number, outcome.state, outcome.values, last, outcome.constraints)

    def close(self) -> None:
        """End the sampler; may be called again."""
        self._sampler.close()

    def _start_sampler(self) -> Sampler:
        recorder = self._recorder
        return self._start(
            self._spec,
            recorder.study.get_trials(deepcopy=False),
            recorder.storage.get_study_system_attrs(recorder.study_id),
        )

    def _find_orphan(
        self, request: events.TrialRequested, assigned: Container[int]
    ) -> FrozenTrial | None:
        """Return a trial that was created before a crash and not handed out.

        The trial that was created for the same request comes first.
        """
        if not self._running:
            return None
        closed = self._recorder.closed
        self._running = orphans = [
            trial
            for trial in self._running
            if trial.number not in closed and trial.number not in assigned
        ]
        matching = (trial for trial in orphans if trial.user_attrs.get(REQUEST) == request.request)
        return next(matching, orphans[0] if orphans else None)

    def _record_skipped_trials(self) -> None:
        for number, reason in self._sampler.take_skipped():
            if self._recorder.get_trial(number).user_attrs.get(SKIPPED) == reason:
                continue  # as before a restart
            logger.warning(
                "trial %d of %r was enqueued and does not run: %s", number, self._spec.name, reason
            )
            trial_id = self._recorder.get_trial_id(number)
            self._recorder.storage.set_trial_user_attr(trial_id, SKIPPED, reason)

    def _create_trial(self, suggestion: Suggestion, request: str) -> int:
        """Create the trial of a suggestion in a single transaction, and return the trial's id."""
        recorder, storage = self._recorder, self._recorder.storage
        study_attrs = renumber_parents(suggestion.study_attrs, recorder.get_trial_id)
        new = self._make_trial(suggestion, request)
        with storage.atomic():
            for key, value in study_attrs.items():
                storage.set_study_system_attr(recorder.study_id, key, value)
            if suggestion.waiting is None:
                return storage.create_new_trial(recorder.study_id, new)
            trial_id = recorder.get_trial_id(suggestion.waiting)
            storage.set_trial_state_values(trial_id, TrialState.RUNNING)
            for name, distribution in new.distributions.items():
                value = distribution.to_internal_repr(new.params[name])
                storage.set_trial_param(trial_id, name, value, distribution)
            for key, value in new.user_attrs.items():
                storage.set_trial_user_attr(trial_id, key, value)
            for key, value in new.system_attrs.items():
                storage.set_trial_system_attr(trial_id, key, value)
            if new.state is not TrialState.RUNNING:
                storage.set_trial_state_values(trial_id, new.state, new.values)
            return trial_id

    def _make_trial(self, suggestion: Suggestion, request: str) -> FrozenTrial:
        """Make the trial of a suggestion: running, or complete with the values of an earlier."""
        now = datetime.now()  # noqa: DTZ005 - Optuna's times are local
        trial = FrozenTrial(
            number=-1,
            trial_id=-1,
            state=TrialState.RUNNING,
            value=None,
            datetime_start=now,
            datetime_complete=None,
            params=suggestion.params,
            distributions=suggestion.distributions,
            user_attrs={
                **suggestion.user_attrs,
                **make_suggestions(suggestion.relative),
                REQUEST: request,
            },
            system_attrs=suggestion.system_attrs,
            intermediate_values={},
        )
        if suggestion.reused is not None:
            earlier = self._recorder.get_trial(suggestion.reused)
            trial.state, trial.values, trial.datetime_complete = earlier.state, earlier.values, now
            trial.user_attrs[REUSED] = earlier.number
            if METRICS in earlier.user_attrs:
                trial.user_attrs[METRICS] = earlier.user_attrs[METRICS]
            trial.system_attrs |= {
                key: value
                for key, value in earlier.system_attrs.items()
                if key.startswith("constraints:")
            }
        return trial
