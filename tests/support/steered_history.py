"""A study in a simulated optimizer that people steer and other programs write to, at random."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable

import msgspec
import optuna
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from support.simulated_bus import SPEC, SimulatedBus
from trialbus.messages import events
from trialbus_services.optimizer.attributes import REQUEST
from trialbus_services.views.study_view import StudyView

_SPACE: dict[str, BaseDistribution] = {"x": FloatDistribution(0, 1)}
_STATES = {
    "complete": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}
_ENDS: tuple[events.TrialState, ...] = ("complete", "pruned", "failed", "preempted")
_EXCEPTION = re.compile(r"\w+Error: ")
_MAX_TURNS = 60  # in which a study ends whose requests are answered


class SteeredHistory:
    """A study whose trials end in all ways, while commands and other programs come between.

    Args:
        database: Storage of the study, which other programs write to as well.
        seed: Seed of all that happens.
        has_others: Whether other programs write to the study, else the optimizer is killed.
    """

    def __init__(self, database: BaseStorage, seed: int, *, has_others: bool) -> None:
        self._random = random.Random(seed)
        self._database = database
        self.bus = SimulatedBus(database)
        self._has_others = has_others
        self._n_submissions = self._n_requests = 0
        self._running: list[events.TrialAssigned] = []
        self._assigned: set[tuple[int, int, str]] = set()
        self._submit()

    def run(self) -> None:
        """Let things happen, and then answer every request until the study has ended."""
        steps: list[Callable[[], None]] = [self._request] * 6 + [self._evaluate] * 10
        steps += [self._end] * 5 + [self._lose] * 2 + [self._withdraw, self._submit]
        steps += [self._command] * 5 + [self._hold] * 2
        steps += [self._write_beside] * 4 if self._has_others else [self._kill] * 2
        for _ in range(self._random.randint(10, 70)):
            self._random.choice(steps)()
            self._collect()
        self._release()
        self.bus.turn(events.Resume(study="s"))
        for _ in range(_MAX_TURNS):
            self._collect()
            if not self._running:
                self._request()
                self._collect()
            for trial in self._running:
                self.bus.turn(_evaluate(trial, 0.5), _end(trial, "complete"))
            self._running = []
            self._release()

    def find_violations(self) -> list[str]:
        """Return what log, database and view say of the study that did not happen."""
        ends = self.bus.log.select(events.StudyFinished)
        if not ends or ends[-1].submission != str(self._n_submissions):
            return ["the study has not ended"]
        trials = self.bus.trials()
        owned = {trial.number: trial for trial in trials if REQUEST in trial.user_attrs}
        problems = [
            f"trial {trial.number} is {trial.state.name}"
            for trial in owned.values()
            if not trial.state.is_finished()
        ]
        problems += self._compare_verdicts(owned)
        problems += [
            f"the study failed: {end.error}" for end in ends if _EXCEPTION.match(end.error or "")
        ]
        counts = Counter(trial.state for trial in trials)
        recorded = [counts[state] for state in _STATES.values()]
        end = ends[-1].counts
        if not self._has_others and recorded != [end.complete, end.pruned, end.failed]:
            problems.append(f"the study ended with {end}, has {recorded}")
        view = StudyView("s")
        for record in self.bus.log(events.Event):
            view.apply(record.event)
        if [view.counts[state] for state in _STATES] != [end.complete, end.pruned, end.failed]:
            problems.append(f"the view counts {view.counts}, the study ended with {end}")
        given = Counter((a.trial, a.attempt) for a in self.bus.log.select(events.TrialAssigned))
        return problems + [f"{trial} was handed out twice" for trial, n in given.items() if n > 1]

    def _compare_verdicts(self, owned: dict[int, FrozenTrial]) -> list[str]:
        verdicts = {v.trial: v for v in self.bus.log.select(events.TrialClosed)}
        problems: list[str] = []
        for number in {number for number, _, _ in self._assigned} & owned.keys():
            trial, verdict = owned[number], verdicts.get(number)
            if verdict is None:
                problems.append(f"trial {number} has no verdict")
            elif _STATES[verdict.state] is not trial.state or (
                verdict.state == "complete" and verdict.values != trial.values
            ):
                problems.append(f"trial {number} is {trial.state.name}, its verdict is {verdict}")
        return problems

    def _submit(self) -> None:
        choose = self._random.choice
        self._n_submissions += 1
        spec = msgspec.structs.replace(
            SPEC,
            n_trials=self._random.randint(1, 6),
            max_failures=choose([None, 2]),
            max_retries=choose([0, 1, 3]),
            catch_exceptions=self._random.random() < 0.8,
            nan=choose(["fail", "prune", "ignore", "worst"]),
            timeout_s=choose([None, None, 60.0]),
            early_stop_patience=choose([None, 2]),
            enqueue=choose([(), ({"x": 0.25},)]),
        )
        self.bus.turn(
            events.StudySubmitted(study="s", spec=spec, submission=str(self._n_submissions))
        )

    def _request(self) -> None:
        self._n_requests += 1
        session = f"{self._random.randint(0, 3)}-{self._n_requests // 4}"
        self.bus.turn(
            events.TrialRequested(study="s", request=f"r{self._n_requests}", session=session)
        )

    def _withdraw(self) -> None:
        request = f"r{self._random.randint(1, self._n_requests + 1)}"
        self.bus.turn(events.RequestWithdrawn(study="s", request=request))

    def _evaluate(self) -> None:
        if self._running:
            value = self._random.choice([self._random.random(), 20.0, float("nan")])
            self.bus.turn(_evaluate(self._random.choice(self._running), value))

    def _end(self) -> None:
        if self._running:
            trial = self._running.pop(self._random.randrange(len(self._running)))
            self.bus.turn(_end(trial, self._random.choice(_ENDS)))

    def _lose(self) -> None:
        if self._running:
            lost = self._random.choice(self._running).session
            self._running = [trial for trial in self._running if trial.session != lost]
            self.bus.turn(events.TrainerLost(session=lost, kind="worker"))

    def _command(self) -> None:
        number = self._random.randint(0, 4)
        params = {"x": self._random.choice([0.1, 5.0])}
        commands = [
            events.Stop(study="s"),
            events.Pause(study="s"),
            events.Resume(study="s"),
            events.Enqueue(study="s", enqueue=str(number), params=params),
            events.Prune(study="s", trial=number, attempt=0, step=0, by="me"),
        ]
        self.bus.turn(self._random.choice(commands))

    def _write_beside(self) -> None:
        """Write to the study as a program with plain Optuna does."""
        study = optuna.load_study(study_name="s", storage=self._database)
        running = [trial for trial in study.get_trials() if trial.state is TrialState.RUNNING]
        match self._random.randrange(4):
            case 0:
                study.ask(_SPACE)
            case 1:
                study.add_trial(
                    optuna.create_trial(values=[0.5], params={"x": 0.5}, distributions=_SPACE)
                )
            case 2:
                study.enqueue_trial({"x": 0.5})
            case _ if running:
                study.tell(self._random.choice(running).number, self._random.random())
            case _:
                pass
        self.bus.turn()

    def _kill(self) -> None:
        """Kill the optimizer, with or without what is not recorded yet, and start another."""
        self.bus.storage.is_held = False
        if self._random.random() < 0.5:
            self.bus.storage.flush(20)
        self.bus.start()
        self._release()

    def _hold(self) -> None:
        """Let the storage be slow until something releases it."""
        self.bus.storage.is_held = not self.bus.storage.is_held
        self.bus.turn()

    def _release(self) -> None:
        self.bus.storage.is_held = False
        for _ in range(2):
            self.bus.turn()
            self.bus.storage.flush(20)
        self.bus.turn()

    def _collect(self) -> None:
        """Collect the trials that were handed out since the last call."""
        for trial in self.bus.log.select(events.TrialAssigned):
            key = (trial.trial, trial.attempt, trial.request)
            if key not in self._assigned:
                self._assigned.add(key)
                self._running.append(trial)


def _evaluate(trial: events.TrialAssigned, value: float) -> events.EvaluationComplete:
    return events.EvaluationComplete(
        study="s", trial=trial.trial, attempt=trial.attempt, step=0, metrics={"loss": value}
    )


def _end(trial: events.TrialAssigned, state: events.TrialState) -> events.TrialFinished:
    return events.TrialFinished(study="s", trial=trial.trial, attempt=trial.attempt, state=state)
