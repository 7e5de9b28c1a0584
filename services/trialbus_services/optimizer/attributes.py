"""Keys of the attributes that trialbus keeps on studies and trials in an Optuna storage.

All are user attributes, so that every tool that reads the storage shows them. Storages on disk have
these keys: a key is never renamed, and the shape of its value never changes.
"""

from __future__ import annotations

from typing import Final

from trialbus.study.trial_attributes import RESERVED_PREFIX

PREFIX: Final = RESERVED_PREFIX
"""Prefix of every key below; attributes of users do not have this prefix."""

# User attributes of a study

SPEC: Final = "trialbus:spec"
"""Specification of the study: a mapping, as `msgspec.to_builtins` gives it of a `StudySpec`."""

ORIGIN: Final = "trialbus:origin"
"""Config, versions, commit and command that the study came from: `StudySubmitted.origin`."""

SUBMISSION: Final = "trialbus:submission"
"""Newest submission and the trials that had failed before: a list `[submission, n_failed]`."""

FOREIGN: Final = "trialbus:foreign"
"""Numbers of the trials that another program ran when trialbus took the study over: a list.

Written by earlier versions. A trial of trialbus is told by `REQUEST`.
"""

END: Final = "trialbus:end"
"""Reason why the study ended, as `StudyFinished.reason`; None while the study runs."""

ELAPSED: Final = "trialbus:elapsed_s"
"""Seconds that the study has run in all its submissions: a float, without a run that was killed."""

# User attributes of a trial

REQUEST: Final = "trialbus:request"
"""Id of the request that the trial was created for."""

HANDED_OUT: Final = "trialbus:handed_out"
"""Request and attempt of the newest assignment: a list `[request, attempt]`.

Absent on a trial that was handed out for the request that it was created for, and for no other.
"""

ENQUEUED: Final = "trialbus:enqueued"
"""Id of the `enqueue` command that the trial was created for."""

ENQUEUED_BY: Final = "trialbus:enqueued_by"
"""Name of the person who enqueued the trial; absent where the command has none."""

SKIPPED: Final = "trialbus:skipped"
"""Why an enqueued trial keeps waiting and is not run: a text."""

REUSED: Final = "trialbus:reused"
"""Number of the earlier trial with the same params, whose values a trial got without running."""

SUGGESTIONS: Final = "trialbus:suggestions"
"""Values that the sampler chose together before the training asked for its params: a mapping from
name to `{"param": ..., "value": ...}`; absent where there are none.
"""

PRUNED_BY: Final = "trialbus:pruned_by"
"""Person who pruned the trial, with the reason: `<by>: <reason>`, or `<by>`."""

ATTEMPT: Final = "trialbus:attempt"
"""Attempt at which the trial ended, from 0."""

RAN: Final = "trialbus:ran_s"
"""Seconds that the attempts of the trial ran in sum, each from its assignment to its end: a float.

Absent for a trial with one attempt, which ran from the start of the trial to its end.
"""

CAUSE: Final = "trialbus:cause"
"""Why a failed trial failed, as `TrialClosed.cause`; absent on others."""

CAUSES: Final = "trialbus:causes"
"""Why the attempts ended that were followed by another one: a list, the oldest first.

Absent for a trial with one attempt; of more than 100 attempts the newest are kept.
"""

PRUNE_REASON: Final = "trialbus:prune_reason"
"""Why a pruned trial was pruned: step, value, and what it was compared with; absent on others."""

WORKER: Final = "trialbus:worker"
"""Name of the worker that ran the last attempt; empty for a free-standing trainer."""

SLOT: Final = "trialbus:slot"
"""Index of the worker's slot."""

METRICS: Final = "trialbus:metrics"
"""Newest value of every metric that the last attempt reported: a mapping from name to float."""

STATE: Final = "trialbus:state"
"""State of a failed trial: `lost`, or `failed` for every other cause; absent on others."""

ERROR: Final = "trialbus:error"
"""Error of a failed trial: a text of one or more lines; absent on others."""

CURVE: Final = "trialbus:curve"
"""Values of the metric that decides about pruning, if it is not the objective's.

A mapping from step, written as text, to float. Further parts of a long curve have the keys
`trialbus:curve:1`, `trialbus:curve:2`, ...
"""

THINNED: Final = "trialbus:thinned"
"""Distance of the steps whose intermediate values are recorded: an int.

Absent where every step is recorded.
"""

VOID: Final = "trialbus:void"
"""Steps of an earlier attempt that the next attempt did not take over: a list.

Only in storages that delete no intermediate values: there such a value becomes NaN.
"""

LATE: Final = "trialbus:late"
"""Evaluations that came too late to count: `{"count": int, "offset": int}`.

`offset` is the offset of the newest in the log.
"""
