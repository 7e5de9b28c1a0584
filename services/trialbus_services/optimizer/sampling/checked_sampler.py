"""CheckedSampler: a sampler whose results are checked, so that an error names sampler and value."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

_T = TypeVar("_T")


class SamplerFaultError(Exception):
    """A sampler raised an exception, or returned what no trial can have."""


class CheckedSampler(BaseSampler):
    """Passes everything on to a sampler, and checks what the sampler returns.

    Args:
        sampler: The sampler.
        name: Name of the sampler, for errors.

    Raises:
        SamplerFaultError: By every method: the sampler raised an exception, which is the cause, or
            returned a value of a wrong type.
    """

    def __init__(self, sampler: BaseSampler, name: str) -> None:
        self._sampler = sampler
        self._name = name

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return the sampler's relative search space."""
        space = self._call(self._sampler.infer_relative_search_space, study, trial)
        return self._check_dict("infer_relative_search_space", space)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return the sampler's values of the params in the relative search space."""
        params = self._call(self._sampler.sample_relative, study, trial, search_space)
        params = self._check_dict("sample_relative", params)
        for name, value in params.items():
            if name in search_space:
                self._check_value("sample_relative", name, value, search_space[name])
        return params

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Return the sampler's value of a param."""
        value = self._call(
            self._sampler.sample_independent, study, trial, param_name, param_distribution
        )
        self._check_value("sample_independent", param_name, value, param_distribution)
        return value

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Let the sampler prepare a trial."""
        self._call(self._sampler.before_trial, study, trial)

    def after_trial(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """Let the sampler learn of the end of a trial."""
        self._call(self._sampler.after_trial, study, trial, state, values)

    def _call(self, method: Callable[..., _T], *args: Any) -> _T:
        try:
            return method(*args)
        except Exception as error:
            raise SamplerFaultError(
                f"the sampler {self._name} failed in {method.__name__}: "
                f"{type(error).__name__}: {error}"
            ) from error

    def _check_dict(self, method: str, value: dict[str, _T]) -> dict[str, _T]:
        if not isinstance(value, dict):  # pyright: ignore[reportUnnecessaryIsInstance] - a user's
            raise SamplerFaultError(
                f"the sampler {self._name} returned {value!r} from {method} (expected a dict)"
            )
        return value

    def _check_value(
        self, method: str, name: str, value: Any, distribution: BaseDistribution
    ) -> None:
        try:
            distribution.to_internal_repr(value)
        except Exception:  # noqa: BLE001 - of any object that a user's sampler returns
            raise SamplerFaultError(
                f"the sampler {self._name} returned {value!r} for the param {name} from {method} "
                f"(expected a value of {distribution})"
            ) from None
