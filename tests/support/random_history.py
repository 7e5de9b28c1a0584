"""A study in a simulated optimizer with real samplers, to which things happen at random."""

from __future__ import annotations

import random
from functools import partial
from types import TracebackType
from typing import Any

import msgspec
from optuna.trial import FrozenTrial, TrialState

from support.simulated_bus import SimulatedBus
from support.until import until
from trialbus.messages import events
from trialbus.study.spec import StudySpec
from trialbus_services.optimizer.distributions import list_values
from trialbus_services.optimizer.sampling.suggester import Suggester

_RARE = 0.2  # the part of the steps at which something rare happens


class RandomHistory:
    """A study with one to four slots, in which trials end, fail and are lost at random.

    Somebody enqueues trials, the optimizer is restarted, and the study is submitted again, each
    at any moment.

    Args:
        spec: Specification of the study; its metric is `m`.
        seed: Seed of all that happens.
        is_calm: Whether every trial is complete, and nothing but trials happens.
    """

    def __init__(self, spec: StudySpec, seed: int, *, is_calm: bool = False) -> None:
        self._spec = spec
        self._random = random.Random(seed)
        self._samplers: list[Suggester] = []
        self.bus = SimulatedBus(start_sampler=self._start_sampler)
        self._n_slots = self._random.randint(1, 4)
        self._n_submissions = self._n_requests = 0
        self._rare = [self._enqueue] * 8 + [self._restart] * 4 + [self._submit_again] * 2
        self._random.shuffle(self._rare)
        self._weights = [6, 1, 1]
        if is_calm:
            self._rare, self._weights = [], [1, 0, 0]
        self.submit()

    def __enter__(self) -> RandomHistory:
        return self

    def __exit__(
        self,
        type_: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for sampler in self._samplers:
            sampler.close()

    def submit(self) -> None:
        """Submit the study, or submit it again."""
        self._n_submissions += 1
        self.bus.turn(
            events.StudySubmitted(
                study=self._spec.name,
                spec=self._spec,
                submission=str(self._n_submissions),
                at=self.bus.clock.now,
            )
        )

    def find_reason(self) -> str | None:
        """Return the reason why the newest submission ended; None while the study runs."""
        finished = self.bus.log.select(events.StudyFinished, self._spec.name)
        newest = [e for e in finished if e.submission == str(self._n_submissions)]
        return newest[-1].reason if newest else None

    def run(self) -> list[FrozenTrial]:
        """Let things happen until the study ends, and return the trials that ran."""
        until(self._step, 30.0, "the end of the study")
        trials = self.bus.trials(self._spec.name)
        assert not [t for t in trials if t.state is TrialState.RUNNING]
        return [trial for trial in trials if trial.state.is_finished()]

    def _step(self) -> bool:
        # A step may find a sampler that is not ready: what is rare is limited by number instead.
        if self._rare and self._random.random() < _RARE:
            self._rare.pop()()
        else:
            self._random.choice([self._request, self._finish])()
        self.bus.turn()
        return self.find_reason() is not None

    def _start_sampler(self, *args: Any) -> Suggester:
        start = partial(Suggester, ahead=self._random.choice([0, 1]), on_ready=lambda: None)
        self._samplers.append(start(*args))
        return self._samplers[-1]

    def _request(self) -> None:
        if self._count_waiting() + len(self._list_open()) < self._n_slots:
            self._n_requests += 1
            request = f"r{self._n_requests}"
            self.bus.turn(
                events.TrialRequested(study=self._spec.name, request=request, session=request)
            )

    def _finish(self) -> None:
        assigned = self._list_open()
        if not assigned:
            return
        trial = self._random.choice(assigned)
        state = self._random.choices(["complete", "failed", "preempted"], self._weights)[0]
        self.bus.turn(
            events.TrialFinished(
                study=trial.study,
                trial=trial.trial,
                attempt=trial.attempt,
                state=state,  # pyright: ignore[reportArgumentType]
                values=[self._random.random()] if state == "complete" else None,
            )
        )

    def _enqueue(self) -> None:
        params: dict[str, Any] = {}
        for name, param in self._spec.params.items():
            if self._random.random() < 0.7:
                params[name] = self._random.choice(list(list_values(param) or ()))
        enqueued = events.Enqueue(
            study=self._spec.name, enqueue=str(self._random.random()), params=params
        )
        self.bus.turn(enqueued)

    def _restart(self) -> None:
        self.bus.start()

    def _submit_again(self) -> None:
        if self.find_reason() is None:
            self._spec = msgspec.structs.replace(self._spec, n_trials=self._spec.n_trials + 1)
            self.submit()

    def _list_open(self) -> list[events.TrialAssigned]:
        name = self._spec.name
        ended = {
            (event.trial, event.attempt)
            for event in self.bus.log.select(events.TrialFinished, name)
        }
        assigned = self.bus.log.select(events.TrialAssigned, name)
        return [event for event in assigned if (event.trial, event.attempt) not in ended]

    def _count_waiting(self) -> int:
        answered = {e.request for e in self.bus.log.select(events.TrialAssigned, self._spec.name)}
        return self._n_requests - len(answered)
