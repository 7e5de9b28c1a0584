"""Recorded study: whether a specification fits the study of the same name in a storage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, check_distribution_compatibility
from optuna.trial import FrozenTrial, TrialState

from trialbus.errors import SpecError
from trialbus.study.search_space import CategoricalParam
from trialbus.study.spec import StudySpec
from trialbus.study.values import is_same
from trialbus_services.optimizer.distributions import describe_distribution, make_distribution
from trialbus_services.optimizer.param_constraints import parse_constraints
from trialbus_services.optimizer.recorded_spec import read_spec


def check_fit(spec: StudySpec, study: optuna.Study) -> None:
    """Check that a study can go on with the trials of the study in the storage.

    Args:
        spec: Specification of the study.
        study: Study in the storage, new or with trials.

    Raises:
        SpecError: Directions, objectives, labels or params differ from those of the study in the
            storage.
    """
    check_directions(spec, [direction.name.lower() for direction in study.directions])
    recorded = read_spec(study.user_attrs)
    check_labels(spec, recorded)
    trials = study.get_trials(deepcopy=False)
    check_meaning(spec, recorded, trials)
    check_space(spec, trials)
    check_names(spec, recorded, trials)


def check_fit_of_changes(spec: StudySpec, study: optuna.Study) -> None:
    """Check as `check_fit`, and read no trials where space and objectives are as recorded.

    The optimizer checks the study again with all trials.
    """
    recorded = read_spec(study.user_attrs)
    if recorded is not None and is_as_recorded(spec, recorded):
        check_directions(spec, [direction.name.lower() for direction in study.directions])
    else:
        check_fit(spec, study)


def is_as_recorded(spec: StudySpec, recorded: StudySpec) -> bool:
    """Return whether space and objectives of a study are those of the study in the storage."""
    return (
        recorded.space == spec.space
        and not recorded.allow_space_change
        and recorded.directions == spec.directions
        and _describe_meaning(recorded) == _describe_meaning(spec)
    )


def check_directions(spec: StudySpec, stored: Sequence[str]) -> None:
    """Check that a study has the directions of the study in the storage.

    Args:
        spec: Specification of the study.
        stored: Directions of the study in the storage.

    Raises:
        SpecError: The directions differ.
    """
    if list(stored) != spec.directions:
        raise SpecError(
            "study.objective.direction",
            f"{spec.directions} does not fit the study {spec.name!r} in the storage, "
            f"which has {stored}; use another study.name",
        )


def check_meaning(
    spec: StudySpec, recorded: StudySpec | None, trials: Sequence[FrozenTrial]
) -> None:
    """Check that the values of new trials mean what the values of the trials in the storage mean.

    Args:
        spec: Specification of the study.
        recorded: Specification in the storage; None for a study of plain Optuna.
        trials: Trials of the study in the storage.

    Raises:
        SpecError: The metric or the aggregation of an objective, or the constraints on metrics
            differ, and there are trials with values.
    """
    if recorded is None or not any(map(_counts, trials)):
        return
    before = _describe_meaning(recorded)
    for key, new in _describe_meaning(spec).items():
        old = before.get(key)
        if new != old:
            raise SpecError(
                key,
                f"{new!r} does not fit the study {spec.name!r} in the storage, whose trials have "
                f"been judged by {old!r}; use another study.name",
            )


def _counts(trial: FrozenTrial) -> bool:
    """Return whether a trial is compared with others, by objective values or by a curve."""
    if trial.state is TrialState.RUNNING:
        return bool(trial.intermediate_values)
    return trial.state in (TrialState.COMPLETE, TrialState.PRUNED)


def _describe_meaning(spec: StudySpec) -> dict[str, Any]:
    """Return what the recorded values of a trial depend on besides the trial, by key."""
    meaning: dict[str, Any] = {}
    for i, objective in enumerate(spec.objectives):
        key = "study.objective" if len(spec.objectives) == 1 else f"study.objective[{i}]"
        meaning[f"{key}.metric"] = objective.metric
        meaning[f"{key}.aggregate"] = objective.aggregate
    meaning["study.constraints"] = sorted(c.text for c in parse_constraints(spec).of_metrics)
    return meaning


def check_space(spec: StudySpec, trials: Sequence[FrozenTrial]) -> None:
    """Check that the params of a study are compatible with the trials in the storage.

    Args:
        spec: Specification of the study.
        trials: Trials of the study in the storage.

    Raises:
        SpecError: Optuna refuses a distribution beside the distribution of an earlier trial.
    """
    known: dict[str, BaseDistribution] = {}
    for trial in trials:
        known |= trial.distributions
    for name, param in spec.space.items():
        new = make_distribution(param)
        try:
            check_distribution_compatibility(known.get(name, new), new)
        except ValueError:
            key = "fixed" if name in spec.fixed else "params"
            raise SpecError(
                f"study.{key}.{name}",
                f"{param} does not fit the study {spec.name!r} in the storage, where it is "
                f"{describe_distribution(known[name])}; use another study.name",
            ) from None


def describe_changed_ranges(spec: StudySpec, recorded: StudySpec) -> list[str]:
    """Return in words which params have another range than in the recorded specification."""
    return [
        f"{name} was {before}, and is {param} now"
        for name, param in spec.params.items()
        if (before := recorded.params.get(name, param)) != param and str(before) != str(param)
    ]


def check_names(spec: StudySpec, recorded: StudySpec | None, trials: Sequence[FrozenTrial]) -> None:
    """Check that a study has the params that the trials in the storage have.

    Args:
        spec: Specification of the study.
        recorded: Specification in the storage; None for a study of plain Optuna.
        trials: Trials of the study in the storage.

    Raises:
        SpecError: A param is new, renamed or left out, and the study does not allow this.
    """
    sampled = {name for trial in trials for name in trial.params}
    if not sampled or spec.allow_space_change or spec.define_by_run:
        return
    # With conditions, a param may have been in no trial yet.
    known = sampled if recorded is None else set(recorded.space) | sampled
    new, gone = sorted(set(spec.space) - known), sorted(sampled - set(spec.space))
    if not new and not gone:
        return
    changes = [f"{name} is new" for name in new] + [f"{name} is left out" for name in gone]
    raise SpecError(
        "study.params",
        f"{', '.join(changes)}, but the study {spec.name!r} in the storage has trials with other "
        "params (expected another study.name, or study.allow_space_change=true to mix them)",
    )


def check_labels(spec: StudySpec, recorded: StudySpec | None) -> None:
    """Check that labelled choices have the values that they had in the study in the storage.

    Args:
        spec: Specification of the study.
        recorded: Specification in the storage; None for a study of plain Optuna.

    Raises:
        SpecError: A label stands for another value: its trials would be mixed with the old ones.
    """
    for name, param in spec.params.items():
        before = recorded.params.get(name) if recorded else None
        if not (isinstance(param, CategoricalParam) and isinstance(before, CategoricalParam)):
            continue
        for label in param.labels:
            value, old = param.decode(label), before.decode(label)
            if label in before.labels and not is_same(value, old):
                raise SpecError(
                    f"study.params.{name}",
                    f"{label} is {value!r}, and was {old!r} in the study {spec.name!r} in the "
                    "storage; use another label, or another study.name",
                )
