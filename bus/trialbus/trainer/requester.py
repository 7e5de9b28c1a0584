"""Requester: trials for somebody else's jobs, such as those of a cluster's scheduler or of Hydra.

```python
with trialbus.TrialRequester("digits") as requester:
    try:
        while True:
            for trial in requester.request(up_to=4):
                jobs[trial] = scheduler.submit(train, trial.params, env=trial.environment)
            for trial in wait_for_some(jobs):
                trial.complete(jobs.pop(trial).result())
    except trialbus.StudyEndedError:
        pass
```
"""

from __future__ import annotations

import socket
import time
import traceback
import uuid
from collections.abc import Sequence
from types import TracebackType
from typing import SupportsFloat

from trialbus.client.link import Link
from trialbus.client.presence import Presence
from trialbus.client.publisher import Publisher
from trialbus.client.subscriber import subscribe
from trialbus.errors import HubUnavailableError, StudyEndedError, is_pruned
from trialbus.messages import events
from trialbus.messages.hand_outs import HandOuts
from trialbus.protocol.endpoint import resolve, resolve_at_start
from trialbus.protocol.security import locate_keys
from trialbus.study.nested_config import Params
from trialbus.trainer.assignment import TTL_S, make_environment
from trialbus.trainer.metrics import convert_values

_CONNECT_S = 10.0
_GATHER_S = 0.2
_TRACEBACK_LINES = 20


class RequestedTrial:
    """A trial for a job that runs elsewhere.

    The job finds its trial by the variables of `environment`: `trialbus.attach()` and
    `trialbus.report()` in the job's process report and are pruned, with the keys of this process.
    The first verdict on the trial counts: if the job has a `with` block around its training, the
    block ends the trial, and what the requester says afterwards is ignored; if the job has none,
    the requester has the only word.

    Attributes:
        number: Number of the trial in its study, from 0.
        attempt: 0 for the first run of the trial, one more each time it is handed out again.
        params: Value of each param by name, as `Trial.params`.
        seed: Seed for the job.
        environment: Variables for the environment of the job's process. Keys are named by path.
    """

    def __init__(self, assigned: events.TrialAssigned, endpoint: str, publisher: Publisher) -> None:
        self._assigned = assigned
        self._publisher = publisher
        self.number = assigned.trial
        self.attempt = assigned.attempt
        self.params = Params(assigned.params)
        self.seed = assigned.seed
        self.environment = {**make_environment(assigned, endpoint), **locate_keys()}

    def complete(self, values: SupportsFloat | Sequence[SupportsFloat] | None = None) -> None:
        """Complete the trial.

        Args:
            values: Objective value, or values; None takes the values from the evaluations.

        Raises:
            TypeError: A value is not a number.
            ValueError: A value is an integer beyond the range of a float.
        """
        self._finish("complete", values=None if values is None else convert_values(values))

    def fail(self, error: str) -> None:
        """Let the trial fail, with the text of an error."""
        self._finish("failed", cause="exception", error=error)

    def hand_back(self, reason: str) -> None:
        """Hand the trial back, to be run again as the next attempt, through no fault of the job."""
        self._finish("preempted", cause="preempted", error=reason)

    def end_by(self, error: BaseException) -> None:
        """End the trial by the exception that ended its job.

        `TrialPruned` prunes the trial, Ctrl-C and SIGTERM hand it back, any other error fails it.
        """
        if is_pruned(error):
            self._finish("pruned")
        elif isinstance(error, KeyboardInterrupt | SystemExit):
            self.hand_back(f"the job was ended by {type(error).__name__}")
        else:
            lines = "".join(traceback.format_exception(error)).splitlines()
            self.fail("\n".join(lines[-_TRACEBACK_LINES:]))

    def _finish(
        self,
        state: events.TrialState,
        *,
        cause: events.FailureCause | None = None,
        values: list[float] | None = None,
        error: str | None = None,
    ) -> None:
        trial = self._assigned
        self._publisher.publish(
            events.TrialFinished(
                study=trial.study,
                trial=trial.trial,
                attempt=trial.attempt,
                state=state,
                cause=cause,
                values=values,
                error=error,
            )
        )


class TrialRequester:
    """Requests trials of a study from the optimizer, for jobs that run elsewhere.

    While it is open, the requester tells the hub that it is alive. A trial without a verdict, of a
    requester that was killed, is handed out again; `close` hands such trials back at once.

    Args:
        study: Name of the study.
        endpoint: Address of the hub; None means `$TRIALBUS_ENDPOINT` or the default.
        name: Name in views and logs; None is the name of this host.

    Raises:
        HubUnavailableError: No hub answered within ten seconds.
    """

    def __init__(self, study: str, *, endpoint: str | None = None, name: str | None = None) -> None:
        self._study = study
        self._name = name or socket.gethostname()
        self._endpoint = resolve(resolve_at_start(endpoint))
        self._hand_outs = HandOuts()
        self._handed: dict[int, RequestedTrial] = {}
        self._link = Link(self._endpoint)
        try:
            self._link.wait_connected(_CONNECT_S)
        except HubUnavailableError:
            self._link.close()
            raise
        self._presence = self._register()
        self._answers = subscribe(
            events.TrialAssigned,
            events.RequestRefused,
            events.TrialClosed,
            study=study,
            link=self._link,
        )
        self._publisher = Publisher(link=self._link)
        self._answers.wait_ready(_CONNECT_S)

    def __enter__(self) -> TrialRequester:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def request(
        self, up_to: int = 1, *, timeout_s: float | None = None, gather_s: float = _GATHER_S
    ) -> list[RequestedTrial]:
        """Request trials, and return those that the optimizer hands out.

        Args:
            up_to: Number of jobs that are free.
            timeout_s: Seconds to wait for the first trial; None for no limit.
            gather_s: Seconds to wait for a further trial after each; then the requests that are
                left are withdrawn, so that the sampler decides when a job is free.

        Returns:
            Trials, at most `up_to`; none after `timeout_s`.

        Raises:
            StudyEndedError: The study has ended.
            ValueError: `up_to` is below 1.
        """
        if up_to < 1:
            raise ValueError(f"up_to {up_to} is below 1 (expected a number of trials)")
        if self._presence.lost:  # this process was suspended: its trials were handed out again
            self._presence.close()
            self._presence = self._register()
        # A trial of a session that the hub does not know would never be handed out again.
        self._presence.wait_registered(_CONNECT_S)
        open_requests = [uuid.uuid4().hex for _ in range(up_to)]
        for slot, request in enumerate(open_requests):
            self._publisher.publish(
                events.TrialRequested(
                    study=self._study,
                    request=request,
                    session=self._presence.session,
                    worker=self._name,
                    slot=slot,
                    ends_with_study=True,
                )
            )
        try:
            return self._gather(open_requests, timeout_s, gather_s)
        finally:
            for request in open_requests:
                self._publisher.publish(events.RequestWithdrawn(study=self._study, request=request))

    def close(self) -> None:
        """Hand back the trials without a verdict, and end the session."""
        for trial in self._handed.values():
            trial.hand_back("the requester has ended")
        self._handed.clear()
        self._answers.close()
        self._publisher.close()
        self._presence.close()
        self._link.close()

    def _gather(
        self, open_requests: list[str], timeout_s: float | None, gather_s: float
    ) -> list[RequestedTrial]:
        """Return the trials of requests, and take their requests off the list."""
        trials: list[RequestedTrial] = []
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while open_requests:
            wait_s = None if deadline is None else max(0.0, deadline - time.monotonic())
            event = self._answers.next(wait_s)
            match event:
                case None:
                    break
                case events.TrialAssigned():
                    if self._hand_outs.add(event) and event.request in open_requests:
                        open_requests.remove(event.request)
                        trial = RequestedTrial(event, self._endpoint, self._publisher)
                        self._handed[trial.number] = trial
                        trials.append(trial)
                        deadline = time.monotonic() + gather_s
                case events.RequestRefused() if event.request in open_requests:
                    open_requests.clear()
                    if not trials:
                        raise StudyEndedError(event.study, event.reason, event.error)
                case events.TrialClosed():
                    self._handed.pop(event.trial, None)
                case _:
                    continue
        return trials

    def _register(self) -> Presence:
        return Presence(
            link=self._link,
            kind="worker",
            name=self._name,
            ttl_s=TTL_S,
            study=self._study,
            info={"study": self._study, "host": socket.gethostname()},
        )
