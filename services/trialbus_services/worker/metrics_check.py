"""Check, before a study starts, that `trainer.metrics` can give the metrics of the study."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from trialbus.errors import SpecError
from trialbus.study.spec import StudySpec
from trialbus.study.validation import find_nearest
from trialbus_services.config.metric_source import MetricSource
from trialbus_services.optimizer.param_constraints import parse_constraints


def check_metrics(sources: Sequence[MetricSource], spec: StudySpec) -> None:
    """Check that some source can give each metric of a study.

    The named groups of a regular expression are known before the program runs; which columns or
    keys a file will have is not, except for those that `names` renames.

    Args:
        sources: Sources of the metrics of an untouched program.
        spec: Specification of the study.

    Raises:
        SpecError: No source can give a metric; names the key, the metric and the nearest metric.
    """
    if not sources:
        return
    known = sorted({name for source in sources for name in source.known_metrics})
    for key, metric in _list_needed_metrics(spec):
        if any(source.can_give(metric) for source in sources):
            continue
        near = find_nearest(metric, known)
        others = f"one of {', '.join(known)}" if known else "a column or key beside the step"
        hint = f"did you mean {near!r}?" if near else f"expected {others}"
        raise SpecError(key, f"{metric!r} is no metric that trainer.metrics can give; {hint}")


def _list_needed_metrics(spec: StudySpec) -> Iterator[tuple[str, str]]:
    """Yield the key of each part of a study that needs a metric, and the metric."""
    for i, metric in enumerate(spec.metrics):
        index = f"[{i}]" if len(spec.metrics) > 1 else ""
        yield f"study.objective{index}.metric", metric
    if spec.prune_by is not None:
        yield "study.prune_by.metric", spec.prune_by.metric
    constraints = parse_constraints(spec)
    for constraint in constraints.of_metrics:
        for name in sorted(constraint.names - constraints.space.keys()):
            yield constraint.key, name
