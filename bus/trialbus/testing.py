"""A hub for your own tests: in this process, on a socket file, without ports and without sleeps.

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
from trialbus.client.ring_directory import ring_directory
from trialbus.client.subscriber import replay, subscribe
from trialbus.hub.hub import Hub
from trialbus.messages import events
from trialbus.study.spec import Evaluation
from trialbus.trainer.assignment import make_environment

_BEGIN_S = 10.0

E = TypeVar("E", bound=events.Event)


class TestBus:
    """A hub in a thread of this process, and short ways to play the optimizer.

    Real in every part but that: what passes here is written, acknowledged and read as on any
    other hub.

    Attributes:
        endpoint: Where it is; hand it to what you test, or use `assign`.
    """

    __test__ = False  # pytest is not to collect it

    def __init__(self) -> None:
        # Not pytest's folder: the path of a socket file has to be short.
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
        shutil.rmtree(ring_directory(self.endpoint), ignore_errors=True)
        shutil.rmtree(self._folder)

    def publish(self, event: events.Event) -> None:
        """Publish an event and wait until it is in the log."""
        with Publisher(self.endpoint, ring_bytes=0) as publisher:
            publisher.publish(event)

    def events(self, type_: type[E]) -> list[E]:
        """Return the events of a type that are in the log, in its order."""
        found = (record.event for record in replay(type_, endpoint=self.endpoint))
        return [event for event in found if isinstance(event, type_)]

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
        """Make the next `trialbus.attach()` return this trial, as a worker would.

        Args:
            setenv: Sets an environment variable, as pytest's `monkeypatch.setenv` does.
            params: Parameters of the trial; the rest is as in `TrialAssigned`.
            study: See `params`.
            trial: See `params`.
            attempt: See `params`.
            seed: See `params`.
            budget: See `params`.
            evaluation: See `params`.
            config: See `params`.
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
        """Tell a trial to stop, once it has begun.

        Raises:
            TimeoutError: It does not begin.
        """
        began = subscribe(
            events.TrialStarted,
            study=study,
            trial=trial,
            start="earliest",
            endpoint=self.endpoint,
        )
        with began:
            if began.next(_BEGIN_S) is None:
                raise TimeoutError(f"trial {trial} of {study!r} has not begun")
        self.publish(events.Prune(study=study, trial=trial, attempt=attempt, step=0))
