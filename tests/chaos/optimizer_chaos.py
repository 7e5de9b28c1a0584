"""Kill the optimizer over and over in a study under load, and compare the records."""

from __future__ import annotations

import random
import time
from collections import defaultdict
from dataclasses import asdict, dataclass

import optuna
from optuna.trial import FrozenTrial, TrialState

import trialbus
from support.client import Client, load_study, start_optimizer
from support.processes import Bus
from trialbus.messages import events

_SLOTS = 8
_STEPS = 60
_PACE_S = 0.01  # between two reports of a trial
_TRIALS_PER_KILL = 60
_WORSE = 10.0
_END_S = 120.0
_STATES = {
    "complete": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}


@dataclass
class Outcome:
    """Counts of a run, and differences between the database and the published events."""

    kills: int = 0
    """SIGKILLs of the optimizer, each followed by a restart."""
    trials: int = 0
    """Trials that ended."""
    pruned: int = 0
    """Trials that were pruned."""
    evaluations: int = 0
    """Published evaluations."""
    missing: int = 0
    """Evaluations that the database lacks, or has with another value."""
    invented: int = 0
    """Evaluations in the database that no trainer published."""
    trials_lost: int = 0
    """Trials with another state in the database than at their trainer."""
    trials_twice: int = 0
    """Trials assigned to two requests, and requests with two trials."""
    miscounted: bool = False
    """Whether the counts of `study_finished` differ from the database."""

    @property
    def is_harmless(self) -> bool:
        """Whether the database equals the published events."""
        n_wrong = self.missing + self.invented + self.trials_lost + self.trials_twice
        return n_wrong == 0 and not self.miscounted

    def __str__(self) -> str:
        return "  ".join(f"{name} {value}" for name, value in asdict(self).items())


class Trainers:
    """Eight trainers on one connection, which report without a pause.

    Attributes:
        published: Values by step, of each trial.
        ends: Final state of each trial.
        requests: Requests that each trial was assigned to.
        finished: The end of the study; None before.
    """

    def __init__(self, client: Client, seed: int) -> None:
        self.published: dict[int, dict[int, float]] = defaultdict(dict)
        self.ends: dict[int, events.TrialState] = {}
        self.requests: dict[int, set[str]] = defaultdict(set)
        self.finished: trialbus.StudyFinished | None = None
        self._client = client
        self._random = random.Random(seed)
        self._running: dict[int, trialbus.TrialAssigned] = {}
        for slot in range(_SLOTS):
            self._ask(slot)

    def turn(self) -> None:
        """Let each trainer report a step."""
        for record in self._client.inbox.records(0.0):
            match record.event:
                case trialbus.TrialAssigned() as trial:
                    self._begin(trial)
                case trialbus.Prune() as prune if prune.trial in self._running:
                    self._end(prune.trial, "pruned")
                case trialbus.StudyFinished() as finished:
                    self.finished = finished
                case _:
                    pass
        for trial in list(self._running.values()):
            self._step(trial)

    def _ask(self, slot: int) -> None:
        request = f"{slot}-{len(self.ends)}-{self._random.random()}"
        self._client.publisher.publish(
            trialbus.TrialRequested(
                study="chaos", request=request, session=self._client.presence.session, slot=slot
            )
        )

    def _begin(self, trial: trialbus.TrialAssigned) -> None:
        self.requests[trial.trial].add(trial.request)
        if trial.trial not in self.ends:
            self._running[trial.trial] = trial

    def _step(self, trial: trialbus.TrialAssigned) -> None:
        values = self.published[trial.trial]
        step = len(values)
        # Two of three trials are about equally good, the median among them; the third is worse
        # from the first step on, since Optuna's rule compares a trial's best value.
        worse = _WORSE if trial.trial % 3 == 0 else 0.0
        values[step] = trial.params["x"] + self._random.random() + worse
        self._client.report(trial, step, loss=values[step])
        if step + 1 == _STEPS:
            self._end(trial.trial, "complete")
        elif self._random.random() < 0.001:
            self._end(trial.trial, "failed")

    def _end(self, number: int, state: events.TrialState) -> None:
        trial = self._running.pop(number)
        self.ends[number] = state
        self._client.finish(trial, state, "bad luck" if state == "failed" else None)
        self._ask(trial.slot)


def run(bus: Bus, kills: int, seed: int) -> Outcome:
    """Kill the optimizer `kills` times at random moments from the start on, and compare."""
    chance = random.Random(seed)
    bus.hub()
    victim = start_optimizer(bus)
    client = Client(bus)
    n_trials = kills * _TRIALS_PER_KILL
    client.submit(
        trialbus.StudySpec(
            name="chaos",
            params={"x": trialbus.FloatParam(low=0, high=1)},
            objectives=(trialbus.Objective(metric="loss", direction="minimize"),),
            n_trials=n_trials,
            sampler=trialbus.Component(type="RandomSampler"),
            pruner=trialbus.Component(type="MedianPruner", args={"n_warmup_steps": 5}),
            max_failures=None,
        )
    )
    trainers = Trainers(client, seed)
    n_kills = 0
    kill_at = time.monotonic() + chance.uniform(0.3, 5.0)
    deadline = time.monotonic() + _END_S + kills * 5
    while trainers.finished is None:
        assert time.monotonic() < deadline, f"no end of the study after {n_kills} kills"
        trainers.turn()
        time.sleep(_PACE_S)  # the pace of the training
        if n_kills < kills and time.monotonic() > kill_at:
            victim.restart()
            n_kills += 1
            kill_at = time.monotonic() + chance.uniform(0.3, 5.0)
    client.close()
    victim.stop(30)
    return _compare(trainers, trainers.finished, load_study(bus, "chaos"), n_kills, n_trials)


def _compare(
    trainers: Trainers,
    finished: trialbus.StudyFinished,
    study: optuna.Study,
    kills: int,
    n_trials: int,
) -> Outcome:
    trials: dict[int, FrozenTrial] = {trial.number: trial for trial in study.trials}
    outcome = Outcome(
        kills=kills,
        trials=len(trainers.ends),
        pruned=sum(end == "pruned" for end in trainers.ends.values()),
        evaluations=sum(map(len, trainers.published.values())),
    )
    for number in range(max(n_trials, len(trials))):
        trial, end = trials.get(number), trainers.ends.get(number)
        if trial is None or end is None or trial.state != _STATES[end]:
            outcome.trials_lost += 1
        recorded = trial.intermediate_values if trial else {}
        published = trainers.published[number]
        outcome.missing += sum(recorded.get(step) != value for step, value in published.items())
        outcome.invented += len(recorded.keys() - published.keys())
    assigned = [request for requests in trainers.requests.values() for request in requests]
    outcome.trials_twice = sum(len(requests) - 1 for requests in trainers.requests.values())
    outcome.trials_twice += len(assigned) - len(set(assigned))
    states = [trial.state for trial in trials.values()]
    counts = events.TrialCounts(
        complete=states.count(TrialState.COMPLETE),
        pruned=states.count(TrialState.PRUNED),
        failed=states.count(TrialState.FAIL),
    )
    outcome.miscounted = counts != finished.counts
    return outcome
