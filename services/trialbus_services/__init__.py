"""Services around the bus: optimizer, worker, reporter, and the launcher of all services."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trialbus_services.optuna_adapter import run_optuna_trial
    from trialbus_services.runner import OptunaRunner, optimize

__all__ = ["OptunaRunner", "optimize", "run_optuna_trial"]


def __getattr__(name: str) -> Any:
    """Import a public name on first use: most of the services need no Optuna."""
    if name == "run_optuna_trial":
        from trialbus_services.optuna_adapter import run_optuna_trial

        return run_optuna_trial
    if name in ("OptunaRunner", "optimize"):
        from trialbus_services import runner

        return getattr(runner, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
