"""ParamRequests: the answers to trainings that ask for their params while they run."""

from __future__ import annotations

from typing import Any

from optuna.distributions import BaseDistribution, check_distribution_compatibility
from optuna.trial import FrozenTrial

from trialbus.messages import events
from trialbus_services.optimizer.distributions import make_distribution
from trialbus_services.optimizer.study_recorder import StudyRecorder
from trialbus_services.optimizer.trial_supply import TrialSupply

_MAX_PARAMS = 1000  # of one trial
_MAX_NAME = 500  # characters; Optuna's databases keep 512


class ParamRequests:
    """Records the params that trainings ask for, and asks the sampler for values.

    A param of a trial gets its value once, whoever asks again: the storage has the value before
    anybody is told.

    Args:
        recorder: Record of the study.
        supply: Supply of the study, which has the sampler.
    """

    def __init__(self, recorder: StudyRecorder, supply: TrialSupply) -> None:
        self._recorder = recorder
        self._supply = supply
        self._pending: dict[tuple[int, str], events.ParamRequested] = {}

    @property
    def is_pending(self) -> bool:
        """Whether a training waits for the sampler."""
        return bool(self._pending)

    def apply(self, event: events.ParamRequested) -> events.ParamSuggested | None:
        """Apply a request of a running attempt; return the answer, if it is known at once."""
        trial = self._recorder.get_trial(event.trial)
        try:
            distribution = self._check(event, trial)
            if event.name in trial.params:
                return _answer(event, trial.params[event.name]) if event.answer else None
            if event.answer:
                self._supply.request_param(event.trial, event.name, distribution)
                self._pending[event.trial, event.name] = event
                return None
            self._record(event, distribution, event.value)
            self._supply.tell_param(event.trial, event.name, distribution, event.value)
        except ValueError as error:
            return refuse_param(event, str(error))
        return None

    def take_answers(self) -> list[events.ParamSuggested]:
        """Return the answers that the sampler has given since the last call, recorded.

        Raises:
            SamplerError: The sampler failed.
        """
        if not self._pending:
            return []
        answers: list[events.ParamSuggested] = []
        if self._supply.revive():
            pending, self._pending = self._pending, {}
            known = (self.apply(event) for event in pending.values())
            answers.extend(answer for answer in known if answer is not None)
        for number, name, value, error in self._supply.take_params():
            event = self._pending.pop((number, name), None)
            if event is None or number in self._recorder.closed:
                continue
            if error is not None:
                answers.append(refuse_param(event, error))
                continue
            try:
                self._record(event, make_distribution(event.param), value)
                answers.append(_answer(event, value))
            except ValueError as problem:
                answers.append(refuse_param(event, str(problem)))
        return answers

    def refuse_all(self, reason: str) -> list[events.ParamSuggested]:
        """Return a refusal of every request that waits for the sampler."""
        pending, self._pending = self._pending, {}
        return [refuse_param(event, reason) for event in pending.values()]

    def _check(self, event: events.ParamRequested, trial: FrozenTrial) -> BaseDistribution:
        """Return the distribution of a request, which the trial may have.

        Raises:
            ValueError: The trial cannot have the param.
        """
        if not 1 <= len(event.name) <= _MAX_NAME:
            raise ValueError(
                f"its name has {len(event.name)} characters (expected 1 to {_MAX_NAME})"
            )
        distribution = make_distribution(event.param)
        if event.name in trial.params:
            check_distribution_compatibility(trial.distributions[event.name], distribution)
        elif len(trial.params) >= _MAX_PARAMS:
            raise ValueError(f"the trial has {_MAX_PARAMS} params (expected no more)")
        elif not (event.answer or event.param.contains(event.value)):
            raise ValueError(f"{event.value!r} is outside of {event.param}")
        return distribution

    def _record(
        self, event: events.ParamRequested, distribution: BaseDistribution, value: Any
    ) -> None:
        self._recorder.record_param(event.trial, event.name, value, distribution)


def _answer(event: events.ParamRequested, value: Any) -> events.ParamSuggested:
    return events.ParamSuggested(
        study=event.study, trial=event.trial, attempt=event.attempt, name=event.name, value=value
    )


def refuse_param(event: events.ParamRequested, error: str) -> events.ParamSuggested:
    """Return the refusal of a request, with the reason."""
    return events.ParamSuggested(
        study=event.study,
        trial=event.trial,
        attempt=event.attempt,
        name=event.name,
        error=error,
    )
