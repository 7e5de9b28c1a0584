"""When and how a study ends."""

from __future__ import annotations

import time
from dataclasses import dataclass

from trialbus.messages import events
from trialbus_services.optimizer.ledger import Book
from trialbus_services.optimizer.running_study import RunningStudy


@dataclass(frozen=True)
class End:
    """Why a study ends, and what more there is to say."""

    reason: events.FinishReason
    error: str | None = None


def end_of(study: RunningStudy, book: Book) -> End | None:
    """Return why no further trial of a study may begin, or None."""
    spec = book.spec
    if book.stop_reason is not None:
        return End("stopped", book.stop_reason)
    too_many = study.failures.too_many
    if too_many is not None:
        return End("failed", too_many)
    if spec.timeout_s is not None and time.time() - book.submitted_at > spec.timeout_s:
        return End("timeout")
    converged = study.progress.converged
    if converged is not None:
        return End("converged", converged)
    return End("exhausted") if study.exhausted else None


def conclusion(study: RunningStudy, book: Book, end: End) -> events.StudyFinished:
    """Return how a study ended that has no trial open."""
    best = study.best_trials()
    error = end.error
    if not best and error is None:
        error = "no trial was completed"
        if study.counts.complete:
            error = "no trial meets the constraints"
        elif study.failures.last_error is not None:
            error = f"{error}; the last error: {study.failures.last_error}"
    return events.StudyFinished(
        study=book.spec.name,
        submission=book.submission,
        reason=end.reason,
        best_trials=best,
        counts=study.counts,
        error=error,
    )


def failure(book: Book, error: Exception) -> events.StudyFinished:
    """Return how a study ended that cannot go on."""
    return events.StudyFinished(
        study=book.spec.name,
        submission=book.submission,
        reason="failed",
        error=f"{type(error).__name__}: {error}",
    )
