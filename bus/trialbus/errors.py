"""Errors: every exception of trialbus.

```
TrialbusError
├── SpecError            a specification is wrong; names the key, the value and what was expected
├── HubUnavailableError  no hub answered at the endpoint in time
├── HubRefusedError      the hub refused a request, with a reason
├── LogError             the event log on disk cannot be used
│   └── LogInUseError    another hub has the event log open
├── LogResetError        the hub now serves another log than before
├── StudyEndedError      the study has ended, so that no trial of it is handed out
├── OutboxFullError      the hub takes no events and the outbox is full
└── ClosedError          a publisher or subscriber was used after `close()`
TrialPruned              not an error: ends the training of a trial that was pruned
```
"""

from __future__ import annotations


class TrialbusError(Exception):
    """Base class of all errors that trialbus raises."""


class SpecError(TrialbusError, ValueError):
    """A specification holds a value that cannot be used.

    Attributes:
        key: Dotted path of the value, for example `study.params.lr.low`.
        problem: The value, what is wrong with it and what was expected.
    """

    def __init__(self, key: str, problem: str) -> None:
        self.key = key
        self.problem = problem
        super().__init__(f"{key}: {problem}")


class HubUnavailableError(TrialbusError, ConnectionError):
    """No hub answered in time. Start a hub, or correct the endpoint.

    Attributes:
        endpoint: Address at which no hub answered.
        waited_s: Seconds for which the client waited.
        source: Option, key or variable that names the address; empty for an argument or a default.
        hint: What the keys may have to do with it; empty where there can be none.
    """

    def __init__(self, endpoint: str, waited_s: float, *, source: str = "", hint: str = "") -> None:
        self.endpoint = endpoint
        self.waited_s = waited_s
        self.source = source
        self.hint = hint
        address = f"{source}={endpoint!r}" if source else repr(endpoint)
        super().__init__(
            f"no hub answered at {address} within {waited_s:g} s; "
            f"start one with `trialbus hub`, or correct {source or 'the endpoint'}"
            + (f"; {hint}" if hint else "")
        )


class HubRefusedError(TrialbusError):
    """The hub refused a request for good; asking again does not help.

    Attributes:
        code: Number of the reason, see docs/protocol.md.
        reason: Reason of the hub, for people.
    """

    def __init__(self, code: int, reason: str) -> None:
        self.code = code
        self.reason = reason
        super().__init__(f"the hub refused: {reason} (code {code})")


class LogError(TrialbusError):
    """The event log cannot be opened, or is not a log of trialbus; the file is unchanged."""


class LogInUseError(LogError):
    """Another hub has the event log open.

    Attributes:
        path: The file of the log.
        owner: Id of the process of the other hub, or `unknown`.
    """

    def __init__(self, path: str, owner: str) -> None:
        self.path = path
        self.owner = owner
        super().__init__(f"{path} is in use by another hub (process {owner})")


class LogResetError(TrialbusError):
    """The hub at the endpoint now serves another log than before.

    Offsets of the old log mean nothing in the new one. Open a new subscriber, and decide
    whether to read the new log from its beginning.

    Attributes:
        old: Id of the log that the client read before.
        new: Id of the log that the hub serves now.
    """

    def __init__(self, old: str, new: str) -> None:
        self.old = old
        self.new = new
        super().__init__(f"the hub's log changed from {old} to {new}: earlier offsets are invalid")


class StudyEndedError(TrialbusError):
    """The study has ended: no trial of the study is handed out until somebody submits it again.

    Attributes:
        study: Name of the study.
        reason: `exhausted`, `timeout`, `stopped`, `converged` or `failed`.
        error: Details of the reason; None where the reason needs none.
    """

    def __init__(self, study: str, reason: str, error: str | None = None) -> None:
        self.study = study
        self.reason = reason
        self.error = error
        text = _END_TEXTS.get(reason, reason)
        if error:
            text = f"{text}: {error}"
        super().__init__(
            f"study {study!r} has ended ({text}), so that no trial is left; "
            "submit the study again, with more trials, to go on"
        )

    def __reduce__(self) -> tuple[type[StudyEndedError], tuple[str, str, str | None]]:
        """Pickle the three attributes, for the other ranks of a training."""
        return type(self), (self.study, self.reason, self.error)


_END_TEXTS = {
    "exhausted": "all of its trials are done",
    "timeout": "its time is over",
    "stopped": "somebody stopped it",
    "converged": "it has converged",
    "failed": "it failed",
}


class OutboxFullError(TrialbusError):
    """The outbox is full and the hub took no event in time; the new event was not queued.

    Attributes:
        capacity: Number of events that the outbox holds at most.
        waited_s: Seconds for which `publish` waited for the hub.
    """

    def __init__(self, capacity: int, waited_s: float) -> None:
        self.capacity = capacity
        self.waited_s = waited_s
        super().__init__(
            f"the outbox holds its {capacity} events and the hub acknowledged none for "
            f"{waited_s:g} s; is the hub running?"
        )


class ClosedError(TrialbusError):
    """The publisher or subscriber was closed before this call."""


class TrialPruned(Exception):  # noqa: N818 - the name Optuna users know
    """The trial was pruned. Let this exception leave the training loop; a prune is no error.

    Attributes:
        step: Step that was judged; None if the training script raised the exception.
        reason: The pruner and the value it judged, or what a person wrote; may be empty.
        by: Person who asked for the prune; empty if the optimizer did.
    """

    def __init__(
        self, message: str = "", *, step: int | None = None, reason: str = "", by: str = ""
    ) -> None:
        self.step = step
        self.reason = reason
        self.by = by
        super().__init__(message)


def is_pruned(error: BaseException | None) -> bool:
    """Tell whether an exception ends a pruned trial: `TrialPruned` of trialbus or of Optuna.

    Optuna's exception is known by the name of its class, so that Optuna need not be installed.
    """
    return any(
        class_.__name__ == "TrialPruned"
        and class_.__module__.partition(".")[0] in _PRUNING_PACKAGES
        for class_ in type(error).__mro__
    )


_PRUNING_PACKAGES = ("trialbus", "optuna")
