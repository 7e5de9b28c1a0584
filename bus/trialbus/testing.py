"""Testing: a hub for users' tests, in the process of the test, without ports and sleeps.

```python
import pytest
from trialbus.testing import TestBus

@pytest.fixture
def bus():
    with TestBus() as bus:
        yield bus

def test_my_training_reports_every_epoch(bus, monkeypatch):
    bus.assign(monkeypatch.setenv, params={"lr": 0.1}, budget=5)
    my_training()
    assert len(bus.events(trialbus.EvaluationComplete)) == 5
```
"""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from trialbus.client.publisher import Publisher
from trialbus.client.ring_directory import locate_ring_directory
from trialbus.client.subscriber import replay, subscribe
from trialbus.hub.hub import Hub
from trialbus.messages import events
from trialbus.study.spec import Evaluation
from trialbus.trainer.assignment import make_environment

_START_TIMEOUT_S = 10.0

E = TypeVar("E", bound=events.Event)


class TestBus:
    """A hub in a thread of the test's process, with methods that act as the optimizer.

    Everything but the thread is as in production: events are written to a log, acknowledged and
    read as from any other hub.

    Attributes:
        endpoint: Address of the hub, for the code under test; `assign` sets the address too.
    """

    __test__ = False  # the name begins with Test, but pytest must not collect the class

    def __init__(self) -> None:
        # Not in pytest's folder: the path of a socket file must be short.
        self._folder = Path(tempfile.mkdtemp(prefix="trialbus-"))
        self.endpoint = f"ipc://{self._folder}/hub.sock"
        self._hub = Hub(self.endpoint, self._folder, sync="normal")
        self._thread = threading.Thread(target=self._hub.run, name="trialbus-hub", daemon=True)

    def __enter__(self) -> TestBus:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._hub.stop()
        self._thread.join()
        shutil.rmtree(locate_ring_directory(self.endpoint), ignore_errors=True)
        shutil.rmtree(self._folder)

    def publish(self, event: events.Event) -> None:
        """Publish an event and wait until the event is in the log."""
        with Publisher(self.endpoint, ring_bytes=0) as publisher:
            publisher.publish(event)

    def events(self, type_: type[E]) -> list[E]:
        """Return the events of a type in the order of the log."""
        logged = (record.event for record in replay(type_, endpoint=self.endpoint))
        return [event for event in logged if isinstance(event, type_)]

    def assign(
        self,
        setenv: Callable[[str, str], object],
        *,
        params: Mapping[str, Any],
        study: str = "test",
        trial: int = 0,
        attempt: int = 0,
        seed: int = 0,
        budget: int | None = None,
        evaluation: Evaluation | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        """Make the next `trialbus.attach()` return a trial with the given params.

        Args:
            setenv: Sets an environment variable, as pytest's `monkeypatch.setenv` does.
            params: Value of each param by name.
            study: Name of the study.
            trial: Number of the trial in the study.
            attempt: Attempt at the trial, from 0.
            seed: Seed of the training.
            budget: Number of steps to train; None leaves the number to the training.
            evaluation: How the training evaluates the model; None leaves this to the training.
            config: Nested configuration that all trials of the study share.
        """
        assigned = events.TrialAssigned(
            study=study,
            trial=trial,
            attempt=attempt,
            request="test",
            session="test",
            params=dict(params),
            seed=seed,
            budget=budget,
            evaluation=evaluation or Evaluation(),
            config=dict(config or {}),
        )
        for name, value in make_environment(assigned, self.endpoint).items():
            setenv(name, value)

    def prune(self, *, study: str = "test", trial: int = 0, attempt: int = 0) -> None:
        """Publish a prune command for a trial, after the trial has started.

        Raises:
            TimeoutError: The trial does not start within ten seconds.
        """
        starts = subscribe(
            events.TrialStarted,
            study=study,
            trial=trial,
            start="earliest",
            endpoint=self.endpoint,
        )
        with starts:
            if starts.next(_START_TIMEOUT_S) is None:
                raise TimeoutError(
                    f"trial {trial} of {study!r} has not started within {_START_TIMEOUT_S:g} s"
                )
        self.publish(events.Prune(study=study, trial=trial, attempt=attempt, step=0))
