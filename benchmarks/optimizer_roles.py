"""Roles of the optimizer benchmark, each a process: ROLE ENDPOINT ARGUMENTS, prints JSON."""

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
        """Ask for trials and return their assignments."""
        requests = {uuid.uuid4().hex for _ in range(count)}
        for request in requests:
            self.publisher.publish(
                events.TrialRequested(study=_STUDY, request=request, session=self.presence.session)
            )
        trials: list[trialbus.TrialAssigned] = []
        while len(trials) < count:
            event = self.assigned.next(60)
            if event is None:
                raise TimeoutError("no trial was assigned")
            if event.request in requests:
                trials.append(event)
        return trials

    def report(self, trial: trialbus.TrialAssigned, step: int, value: float) -> None:
        self.publisher.publish(
            trialbus.EvaluationComplete(
                study=_STUDY, trial=trial.trial, step=step, metrics={"loss": value, "lr": 1e-3}
            )
        )

    def finish(self, trial: trialbus.TrialAssigned, state: events.TrialState) -> None:
        self.publisher.publish(events.TrialFinished(study=_STUDY, trial=trial.trial, state=state))


@contextmanager
def start_worker(endpoint: str) -> Generator[Worker]:
    worker = Worker(endpoint)
    try:
        yield worker
    finally:
        worker.publisher.close(60)
        worker.presence.close()
        worker.assigned.close()
        worker.link.close()


def study(endpoint: str, n_trials: int, define_by_run: int = 0) -> dict[str, float]:
    """Submit the study: seven params, a median pruner, a random sampler."""
    param = trialbus.FloatParam(low=0, high=1)
    spec = trialbus.StudySpec(
        name=_STUDY,
        params={} if define_by_run else dict.fromkeys(_PARAMS, param),
        define_by_run=bool(define_by_run),
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
    """Report for several trials at once, as fast as possible, and ignore prune commands."""
    with start_worker(endpoint) as worker:
        # Half of the trials are above the median, so that the pruner prunes.
        groups = [min(_AT_ONCE, trials - first) for first in range(0, trials, _AT_ONCE)]
        ready = worker.ask(groups[0])
        print("ready", flush=True)
        sys.stdin.readline()
        began = time.time()
        count = 0
        for size in [*groups[1:], 0]:
            for step in range(steps):
                for i, trial in enumerate(ready):
                    worker.report(trial, step, 1.0 / (step + 1) + i)
                    count += 1
            for trial in ready:
                worker.finish(trial, "complete" if complete else "pruned")
            ready = worker.ask(size) if size else []
        worker.publisher.flush(120)
    return {"began": began, "evaluations": count}


def load(endpoint: str, rate: int, trials: int) -> dict[str, float]:
    """Report at a rate until this process is terminated."""
    with start_worker(endpoint) as worker:
        open_trials = worker.ask(trials)
        began, sent = time.time(), 0
        while True:
            while sent < (time.time() - began) * rate:
                worker.report(open_trials[sent % trials], sent // trials, 0.0)
                sent += 1
            time.sleep(0.001)


def prune(endpoint: str, count: int) -> dict[str, float]:
    """Report bad values one after another, and measure the time until each prune command."""
    waits: list[float] = []
    with (
        start_worker(endpoint) as worker,
        trialbus.subscribe(trialbus.Prune, study=_STUDY, link=worker.link) as prunes,
    ):
        prunes.wait_ready(30)
        for _ in range(count):
            (trial,) = worker.ask(1)
            began = time.perf_counter()
            worker.report(trial, 0, 1e6)
            while (command := prunes.next(30)) is not None and command.trial != trial.trial:
                pass
            waits.append(time.perf_counter() - began)
            worker.finish(trial, "pruned")
    waits.sort()
    return {
        "prune_latency_p50_ms": waits[len(waits) // 2] * 1e3,
        "prune_latency_p99_ms": waits[len(waits) * 99 // 100] * 1e3,
    }


def params(endpoint: str, count: int) -> dict[str, float]:
    """Ask for one param of a trial after another, and measure the time of each answer."""
    study(endpoint, 1, 1)
    waits: list[float] = []
    param = trialbus.FloatParam(low=0, high=1)
    with (
        start_worker(endpoint) as worker,
        trialbus.subscribe(events.ParamSuggested, study=_STUDY, link=worker.link) as answers,
    ):
        answers.wait_ready(30)
        (trial,) = worker.ask(1)
        for number in range(count):
            request = events.ParamRequested(
                study=_STUDY, trial=trial.trial, name=f"p{number}", param=param
            )
            began = time.perf_counter()
            worker.publisher.publish(request)
            if answers.next(30) is None:
                raise TimeoutError("no param was suggested")
            waits.append(time.perf_counter() - began)
        worker.finish(trial, "pruned")
    waits.sort()
    return {
        "param_p50_ms": waits[len(waits) // 2] * 1e3,
        "param_p99_ms": waits[len(waits) * 99 // 100] * 1e3,
    }


def ask(endpoint: str, count: int) -> dict[str, float]:
    """Ask for one trial after another, and measure the time of each answer."""
    waits: list[float] = []
    ended = 0.0
    with start_worker(endpoint) as worker:
        for _ in range(count):
            began = time.perf_counter()
            (trial,) = worker.ask(1)
            waits.append(time.perf_counter() - began)
            ended = time.time()
            worker.finish(trial, "pruned")
    waits.sort()
    return {
        "ended": ended,
        "p50_ms": waits[len(waits) // 2] * 1e3,
        "p99_ms": waits[len(waits) * 99 // 100] * 1e3,
    }


if __name__ == "__main__":
    role, address, *arguments = sys.argv[1:]
    roles = {
        "study": study,
        "report": report,
        "load": load,
        "prune": prune,
        "ask": ask,
        "params": params,
    }
    print(json.dumps(roles[role](address, *map(int, arguments))), flush=True)
