"""Attachment: how a process gets the handle of its trial, from a worker or from the optimizer."""

from __future__ import annotations

import hashlib
import os
import random
import socket
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from trialbus.client.handover import claim_attempt
from trialbus.client.link import Link
from trialbus.client.presence import Presence
from trialbus.errors import SpecError, StudyEndedError, TrialbusError
from trialbus.messages import events
from trialbus.protocol.endpoint import resolve_at_start
from trialbus.trainer.assignment import TRIAL_VARIABLE, TTL_S, parse_assignment
from trialbus.trainer.channel import (
    BusChannel,
    Channel,
    ListeningChannel,
    PrintingChannel,
    SilentChannel,
    print_line,
)
from trialbus.trainer.defaults import assign_defaults, check_defaults
from trialbus.trainer.distributed import Ranks
from trialbus.trainer.metrics import NO_METRICS
from trialbus.trainer.request import request_trial
from trialbus.trainer.trial import Trial

#: Environment variable that a process sets for its children when it attaches to a worker's trial.
SPEAKER_VARIABLE = "TRIALBUS_SPEAKER"


#: Why a sweep of Hydra cannot be one trial.
MULTIRUN_ERROR = (
    "this Hydra application runs a sweep (hydra.mode=MULTIRUN, or -m in trainer.command), which "
    "cannot be one trial: each of its jobs has a value of its own; set hydra.mode=RUN, and let the "
    "study search what the sweep varies"
)


@dataclass
class _Attached:
    """The trial of the worker to which this process is attached."""

    trial: Trial | None = None
    text: str = ""  # value of `$TRIALBUS_TRIAL`
    pid: int = 0  # a forked child is not attached
    newest: Trial | None = None  # of a worker or not: the trial that `report` means


_attached = _Attached()


def attach(
    study: str | None = None,
    *,
    defaults: Mapping[str, Any] | None = None,
    budget: int | None = None,
    endpoint: str | None = None,
    timeout_s: float | None = None,
) -> Trial:
    """Return the trial that this process runs.

    In a process that a worker started, this is the worker's trial, and further calls return the
    same object. In any other process the optimizer is asked for a trial of `study`. Without `study`
    the trial is stand-alone: `defaults` are the params and reports are printed, so that the same
    script also runs by hand.

    One process speaks for a worker's trial: the first that attaches, and in distributed training
    rank 0. A child of this process, and any other rank, gets a handle that listens: it has the
    params and receives a prune, and what it reports is dropped. In a process group of
    `torch.distributed` every rank makes the same reports, and a prune reaches all ranks at the same
    report. Without a worker, call `init_process_group()` before `attach()`.

    Args:
        study: Study from which to request a trial, unless a worker has given a trial.
        defaults: Params of a stand-alone trial; in a study, params that the study does not search.
            Values may be of any type; in distributed training pickle has to know the type.
        budget: Number of steps to train if the study has no budget.
        endpoint: Address of the hub; None means `$TRIALBUS_ENDPOINT` or the default.
        timeout_s: Seconds to wait for a requested trial; None means no limit.

    Raises:
        SpecError: `$TRIALBUS_TRIAL` is malformed, the process runs a sweep of Hydra, `defaults` is
            not a mapping of names, or `budget` is not a number of steps.
        HubUnavailableError: No hub answered within `timeout_s`.
        StudyEndedError: The study has ended, so that no trial of the study is handed out.
        TrialbusError: No trial was handed out within `timeout_s`, or a launcher started several
            processes and there is no process group yet.

    Example:
        >>> with attach(defaults={"lr": 1e-3}, budget=20) as trial:  # doctest: +SKIP
        ...     trial.report(0, {"loss": train(trial.params["lr"])})
    """
    check_defaults(defaults, budget)
    endpoint = resolve_at_start(endpoint)
    text = os.environ.get(TRIAL_VARIABLE, "")
    attached = _attached.trial
    is_attached = attached is not None and not attached.is_closed
    if (
        attached is not None
        and is_attached
        and (_attached.text, _attached.pid)
        == (
            text,
            os.getpid(),
        )
    ):
        attached.set_defaults(defaults, budget)
        return attached
    if text and _is_multirun():
        raise SpecError("hydra.mode", MULTIRUN_ERROR)
    ranks = Ranks(is_given=bool(text))
    try:
        assigned, channel = _open_channel(text, study, ranks, endpoint, timeout_s)
    except StudyEndedError as error:
        ranks.share(error)
        raise
    except TrialbusError as error:
        ranks.share(TrialbusError(str(error)))
        raise
    shared = ranks.share(assign_defaults(assigned, defaults))
    if isinstance(shared, TrialbusError):  # of rank 0
        raise shared
    trial = Trial(shared, channel, budget, ranks)
    if text:
        _attached.trial, _attached.text, _attached.pid = trial, text, os.getpid()
    _attached.newest = trial
    return trial


def report(step: int, metrics: Mapping[str, Any] = NO_METRICS, *, wait: float = 0.0) -> None:
    """Report an evaluation of the trial that this process runs, as `Trial.report` does.

    The trial is the newest that this process attached to and that has not ended; without any,
    `attach()` returns one. So a loop needs this line alone where something else begins and ends the
    trial, as `hydra/sweeper=trialbus` does; in a process that is started by hand the evaluations
    are printed.

    Args:
        step: Step that was evaluated: a non-negative epoch, update or episode.
        metrics: Numbers by name; nested mappings are flattened with `/`.
        wait: Seconds to wait at most for the decision about this step.

    Raises:
        TrialPruned: The trial was pruned; let the exception leave the training.
        TypeError: As for `Trial.report`.
        ValueError: As for `Trial.report`.
        OutboxFullError: The hub has been away for so long that the outbox is full.

    Example:
        >>> for epoch in range(20):  # doctest: +SKIP
        ...     report(epoch, {"val/accuracy": train_epoch()})
    """
    trial = _attached.newest
    if trial is None or trial.is_closed or trial.pid != os.getpid():
        trial = attach()
    trial.report(step, metrics, wait=wait)


def trials(
    study: str,
    *,
    defaults: Mapping[str, Any] | None = None,
    budget: int | None = None,
    endpoint: str | None = None,
    timeout_s: float | None = None,
) -> Iterator[Trial]:
    """Yield one trial of a study after the other until the study has ended.

    The loop makes a plain script a worker with a single slot. Each trial is as `attach` returns it;
    `with trial:` around the training ends the trial quietly when it is pruned. A trial that the
    body of the loop has not ended is completed when the loop goes on. If the loop is left instead,
    by `break` or by an exception, the trial fails, or is pruned if a prune command has arrived.

    In a process that a worker started, the only trial is the worker's.

    Args:
        study: Study from which the trials are requested.
        defaults: As for `attach`.
        budget: As for `attach`.
        endpoint: As for `attach`.
        timeout_s: Seconds to wait for each trial; None means no limit.

    Raises:
        HubUnavailableError: No hub answered within `timeout_s`.
        TrialbusError: No trial was handed out within `timeout_s`.

    Example:
        >>> for trial in trials("digits"):  # doctest: +SKIP
        ...     with trial:
        ...         trial.report(0, {"loss": train(trial.params["lr"])})
    """
    is_given = bool(os.environ.get(TRIAL_VARIABLE))
    while True:
        try:
            trial = attach(
                study, defaults=defaults, budget=budget, endpoint=endpoint, timeout_s=timeout_s
            )
        except StudyEndedError as error:
            print_line(str(error))
            return
        try:
            yield trial
        except GeneratorExit:
            trial.abandon("the loop over trials was left before the trial had ended")
            raise
        with trial:  # unless the body of the loop has ended the trial
            pass
        if is_given:
            return


def _open_channel(
    text: str, study: str | None, ranks: Ranks, endpoint: str | None, timeout_s: float | None
) -> tuple[events.TrialAssigned, Channel]:
    """Return the assignment of this process's trial, and a channel for the trial."""
    if ranks.is_grouped and ranks.rank:  # rank 0 shares the assignment, and every command
        return events.TrialAssigned(trial=0, params={}), SilentChannel()
    if text:
        assigned = parse_assignment(text)
        link = Link(endpoint)
        speaker = "" if ranks.rank else _find_speaker(text, assigned, link)
        if speaker and ranks.is_grouped:
            link.close()
            raise TrialbusError(f"this is rank 0, but {_describe_speaker(speaker)}")
        if ranks.rank or speaker:
            warning = _describe_speaker(speaker) if speaker else ""
            ranks.note_listening()
            return assigned, ListeningChannel(link, assigned, warning)
        presence = _register(assigned, link)
        os.environ[SPEAKER_VARIABLE] = f"{_digest(text)} {socket.gethostname()} {os.getpid()}"
        return assigned, BusChannel(link, presence, assigned)
    if study is not None:
        link, presence, assigned = request_trial(study, endpoint, timeout_s)
        return assigned, BusChannel(link, presence, assigned)
    return _make_stand_alone(), PrintingChannel()


def _register(assigned: events.TrialAssigned, link: Link) -> Presence:
    """Register this process with the hub as the trainer of a trial."""
    return Presence(
        link=link,
        kind="trainer",
        ttl_s=TTL_S,
        study=assigned.study,
        trial=assigned.trial,
        attempt=assigned.attempt,
        info={"host": socket.gethostname(), "pid": str(os.getpid())},
    )


def _find_speaker(text: str, assigned: events.TrialAssigned, link: Link) -> str:
    """Return the host and the id of another process that speaks for the trial; empty if none does.

    This is a process above this one, or one that the same training started.

    Args:
        text: Value of `$TRIALBUS_TRIAL`.
        assigned: The same, parsed.
        link: Link to the hub.
    """
    host, pid = socket.gethostname(), os.getpid()
    digest, _, speaker = os.environ.get(SPEAKER_VARIABLE, "").partition(" ")
    if digest == _digest(text) and speaker != f"{host} {pid}":
        return speaker
    speaking = claim_attempt(link.endpoint, assigned.request)
    return "" if speaking == pid else f"{host} {speaking}"


def _describe_speaker(speaker: str) -> str:
    host, _, pid = speaker.rpartition(" ")
    return (
        f"process {pid} on {host} has attached to this trial and speaks for it: what this process "
        "reports is dropped; call trialbus.attach() only in the process that trains"
    )


def _is_multirun() -> bool:
    """Tell whether this process runs a job of a sweep of Hydra, which is not imported here."""
    module = sys.modules.get("hydra.core.hydra_config")
    if module is None or not module.HydraConfig.initialized():
        return False
    config = module.HydraConfig.get()
    is_multirun = getattr(config.mode, "name", config.mode) == "MULTIRUN"
    # A sweeper that requests the trials itself gives each of its jobs one.
    return is_multirun and TRIAL_VARIABLE not in config.job.env_set


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _make_stand_alone() -> events.TrialAssigned:
    print_line(
        f"stand-alone (no ${TRIAL_VARIABLE} and no study given): "
        "default params, reports are printed"
    )
    seed = random.SystemRandom().randrange(2**31)
    return events.TrialAssigned(trial=0, params={}, seed=seed)
