"""Commands: from the optimizer or a person to a trainer, and from a person to the optimizer."""

from __future__ import annotations

from typing import Any

from trialbus.messages.event import Event, TrialEvent


class Proceed(TrialEvent, frozen=True, kw_only=True):
    """The optimizer tells a trainer that waits for a decision to go on.

    Sent only for an `evaluation_complete` with `answer`.
    """

    step: int
    """Step that was judged."""


class Prune(TrialEvent, frozen=True, kw_only=True):
    """The optimizer, or a person, tells a trainer to stop, because the trial is not promising.

    A person's prune lasts: the trial ends as pruned even if its trainer is lost before the command
    has arrived.
    """

    step: int
    """Step that was judged; from a person, the newest step that the person saw."""

    reason: str = ""
    """Why, for people: the pruner and the value it judged, or what a person wrote."""

    by: str = ""
    """Person who asked for the prune; empty if the optimizer did."""


class Pause(Event, frozen=True, kw_only=True):
    """A person wants no trial of a study to be handed out for now; running trials go on.

    The pause lasts, also over restarts of services, until a `resume` or the next submission.
    """

    by: str = ""
    """Person who asked for the pause."""


class Resume(Event, frozen=True, kw_only=True):
    """A person wants trials of a paused study to be handed out again."""

    by: str = ""
    """Person who asked to resume."""


class Enqueue(Event, frozen=True, kw_only=True):
    """A person wants a trial with the given params, ahead of the sampler's suggestions.

    The trial is one of the study's `n_trials`. Params outside of the search space are refused.
    """

    params: dict[str, Any]
    """Value of each param by name; the sampler suggests the params that are left out."""

    enqueue: str
    """Id of this command; a repeated command with the same id creates no second trial."""

    by: str = ""
    """Person who asked for the trial."""


class Stop(Event, frozen=True, kw_only=True):
    """A person wants a study to end now: running trials are pruned, no more are handed out."""

    reason: str = ""
    """Why, for people; may be empty."""
