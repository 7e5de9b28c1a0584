"""A scripted worker and listener on a real bus."""

from __future__ import annotations

import uuid
from typing import TypeVar

import optuna

import trialbus
from support.processes import Bus, Managed
from trialbus.client.admin import hub_status
from trialbus.client.link import Link
from trialbus.messages import events
from trialbus_services.optimizer.status import OptimizerStatus, from_info

SPEC = trialbus.StudySpec(
    name="quadratic",
    params={
        "x": trialbus.FloatParam(low=-3, high=3),
        "kind": trialbus.CategoricalParam(choices=("a", "b")),
    },
    objectives=(trialbus.Objective(metric="loss", direction="minimize"),),
    n_trials=8,
    budget=3,
    sampler=trialbus.Component(type="RandomSampler"),
    pruner=None,
)

E = TypeVar("E", bound=trialbus.Event)


class Client:
    """A scripted worker and listener in the test's own process."""

    def __init__(self, bus: Bus, ttl_s: float = 60.0) -> None:
        self.link = trialbus.Link(bus.endpoint)
        self.presence = trialbus.Presence(
            link=self.link, kind="worker", name="scripted", ttl_s=ttl_s
        )
        self.inbox = trialbus.subscribe(link=self.link)
        self.publisher = trialbus.Publisher(link=self.link)
        self.presence.wait_registered(10)
        self.inbox.wait_ready()

    def close(self) -> None:
        self.publisher.close()
        self.presence.close()
        self.inbox.close()
        self.link.close()

    def next(self, type_: type[E], **fields: object) -> E:
        """Return the next event of a type with the given fields; skip all other events."""
        while True:
            event = self.inbox.next(20)
            assert event is not None, f"no {type_.__name__} arrived"
            if isinstance(event, type_) and all(getattr(event, k) == v for k, v in fields.items()):
                return event

    def submit(self, spec: trialbus.StudySpec = SPEC) -> str:
        submission = uuid.uuid4().hex
        self.publisher.publish(
            events.StudySubmitted(study=spec.name, spec=spec, submission=submission)
        )
        return submission

    def request(self, study: str = SPEC.name, request: str | None = None) -> str:
        """Request a trial without waiting for the trial, and return the request's id."""
        request = request or uuid.uuid4().hex
        self.publisher.publish(
            events.TrialRequested(study=study, request=request, session=self.presence.session)
        )
        return request

    def ask(self, study: str = SPEC.name, request: str | None = None) -> trialbus.TrialAssigned:
        request = self.request(study, request)
        return self.next(trialbus.TrialAssigned, request=request)

    def report(self, trial: trialbus.TrialAssigned, step: int, **metrics: float) -> None:
        self.publisher.publish(
            events.EvaluationComplete(
                study=trial.study,
                trial=trial.trial,
                attempt=trial.attempt,
                step=step,
                metrics=metrics,
            )
        )

    def finish(
        self,
        trial: trialbus.TrialAssigned,
        state: events.TrialState = "complete",
        error: str | None = None,
        values: list[float] | None = None,
    ) -> None:
        self.publisher.publish(
            events.TrialFinished(
                study=trial.study,
                trial=trial.trial,
                attempt=trial.attempt,
                state=state,
                error=error,
                values=values,
            )
        )

    def run_one(self, study: str = SPEC.name) -> trialbus.TrialAssigned:
        trial = self.ask(study)
        for step in range(3):
            self.report(trial, step, loss=float(trial.params["x"]) ** 2 + 1 / (step + 1))
        self.finish(trial)
        return trial


def start_optimizer(bus: Bus, *overrides: str) -> Managed:
    """Start the optimizer on a SQLite file."""
    return bus.service("optimizer", "storage.url=sqlite:///studies.db", *overrides)


def load_study(bus: Bus, study: str = SPEC.name) -> optuna.Study:
    """Return the study that plain Optuna loads from the storage."""
    return optuna.load_study(study_name=study, storage=f"sqlite:///{bus.directory}/studies.db")


def read_optimizer_status(link: Link) -> OptimizerStatus:
    """Return the status in the optimizer's session."""
    sessions = hub_status(link).sessions
    status = from_info(next(s.info for s in sessions if s.kind == "optimizer"))
    assert status is not None
    return status
