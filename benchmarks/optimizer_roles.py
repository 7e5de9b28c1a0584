"""The processes of the optimizer benchmarks: ROLE ENDPOINT ARGUMENTS, one JSON line at the end."""

from __future__ import annotations

import json
import sys
import time
import uuid
from collections.abc import Generator
from contextlib import contextmanager

import trialbus
from trialbus.messages import events

_STUDY = "bench"
_PARAMS = ("a", "b", "c", "d", "e", "f", "g")
_AT_ONCE = 8


class Worker:
    """Asks for trials and reports, without training anything."""

    def __init__(self, endpoint: str) -> None:
        self.link = trialbus.Link(endpoint)
        self.presence = trialbus.Presence(link=self.link, kind="worker", ttl_s=600)
        self.assigned = trialbus.subscribe(trialbus.TrialAssigned, study=_STUDY, link=self.link)
        self.publisher = trialbus.Publisher(link=self.link, capacity=1 << 24, ring_bytes=256 << 20)
        self.presence.wait_registered(30)
        self.assigned.wait_ready(30)
        self._open: dict[str, trialbus.TrialAssigned] = {}

    def ask(self, count: int) -> list[trialbus.TrialAssigned]:
        """Ask for trials and wait for all of them."""
        wanted = {uuid.uuid4().hex for _ in range(count)}
        for request in wanted:
            self.publisher.publish(
                events.TrialRequested(study=_STUDY, request=request, session=self.presence.session)
            )
        found: list[trialbus.TrialAssigned] = []
        while len(found) < count:
            event = self.assigned.next(60)
            if event is None:
                raise TimeoutError("no trial was assigned")
            if event.request in wanted:
                found.append(event)
        return found

    def report(self, trial: trialbus.TrialAssigned, step: int, value: float) -> None:
        self.publisher.publish(
            trialbus.EvaluationComplete(
                study=_STUDY, trial=trial.trial, step=step, metrics={"loss": value, "lr": 1e-3}
            )
        )

    def finish(self, trial: trialbus.TrialAssigned, state: events.TrialState) -> None:
        self.publisher.publish(events.TrialFinished(study=_STUDY, trial=trial.trial, state=state))


@contextmanager
def worker(endpoint: str) -> Generator[Worker]:
    made = Worker(endpoint)
    try:
        yield made
    finally:
        made.publisher.close(60)
        made.presence.close()
        made.assigned.close()
        made.link.close()


def study(endpoint: str, n_trials: int) -> dict[str, float]:
    """Submit the study: seven params, a median pruner, a random sampler."""
    spec = trialbus.StudySpec(
        name=_STUDY,
        params={name: trialbus.FloatParam(low=0, high=1) for name in _PARAMS},
        objectives=(trialbus.Objective(metric="loss", direction="minimize"),),
        n_trials=n_trials,
        sampler=trialbus.Component(type="RandomSampler"),
        pruner=trialbus.Component(type="MedianPruner"),
    )
    with (
        trialbus.subscribe(trialbus.StudyStarted, endpoint=endpoint) as inbox,
        trialbus.Publisher(endpoint) as publisher,
    ):
        inbox.wait_ready(30)
        publisher.publish(events.StudySubmitted(study=_STUDY, spec=spec, submission="bench"))
        if inbox.next(30) is None:
            raise TimeoutError("the study did not start")
    return {}


def report(endpoint: str, trials: int, steps: int, complete: int) -> dict[str, float]:
    """Report for several trials at once, as fast as it goes, heeding no prune command."""
    with worker(endpoint) as mine:
        # Half of them are above the median, so that the pruner has something to say.
        groups = [min(_AT_ONCE, trials - first) for first in range(0, trials, _AT_ONCE)]
        ready = mine.ask(groups[0])
        print("ready", flush=True)
        sys.stdin.readline()
        began = time.time()
        count = 0
        for size in [*groups[1:], 0]:
            for step in range(steps):
                for i, trial in enumerate(ready):
                    mine.report(trial, step, 1.0 / (step + 1) + i)
                    count += 1
            for trial in ready:
                mine.finish(trial, "complete" if complete else "pruned")
            ready = mine.ask(size) if size else []
        mine.publisher.flush(120)
    return {"began": began, "evaluations": count}


def load(endpoint: str, rate: int, trials: int) -> dict[str, float]:
    """Report at a rate until ended."""
    with worker(endpoint) as mine:
        open_trials = mine.ask(trials)
        began, sent = time.time(), 0
        while True:
            while sent < (time.time() - began) * rate:
                mine.report(open_trials[sent % trials], sent // trials, 0.0)
                sent += 1
            time.sleep(0.001)


def prune(endpoint: str, count: int) -> dict[str, float]:
    """Report bad values one after another, and time each until its prune command is here."""
    waits: list[float] = []
    with (
        worker(endpoint) as mine,
        trialbus.subscribe(trialbus.Prune, study=_STUDY, link=mine.link) as prunes,
    ):
        prunes.wait_ready(30)
        for _ in range(count):
            (trial,) = mine.ask(1)
            began = time.perf_counter()
            mine.report(trial, 0, 1e6)
            while (command := prunes.next(30)) is not None and command.trial != trial.trial:
                pass
            waits.append(time.perf_counter() - began)
            mine.finish(trial, "pruned")
    waits.sort()
    return {
        "prune_latency_p50_ms": waits[len(waits) // 2] * 1e3,
        "prune_latency_p99_ms": waits[len(waits) * 99 // 100] * 1e3,
    }


def ask(endpoint: str, count: int) -> dict[str, float]:
    """Ask for one trial after another, and time each."""
    waits: list[float] = []
    ended = 0.0
    with worker(endpoint) as mine:
        for _ in range(count):
            began = time.perf_counter()
            (trial,) = mine.ask(1)
            waits.append(time.perf_counter() - began)
            ended = time.time()
            mine.finish(trial, "pruned")
    waits.sort()
    return {
        "ended": ended,
        "p50_ms": waits[len(waits) // 2] * 1e3,
        "p99_ms": waits[len(waits) * 99 // 100] * 1e3,
    }


if __name__ == "__main__":
    role, where, *rest = sys.argv[1:]
    roles = {"study": study, "report": report, "load": load, "prune": prune, "ask": ask}
    print(json.dumps(roles[role](where, *map(int, rest))), flush=True)
