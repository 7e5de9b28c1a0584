"""The services around the bus: optimizer, worker, reporter, and the launcher that starts them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trialbus_services.in_process import run_optuna_trial

__all__ = ["run_optuna_trial"]


def __getattr__(name: str) -> Any:
    """Import what is public here when it is asked for: most of the services need no Optuna."""
    if name in __all__:
        from trialbus_services import in_process

        return getattr(in_process, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
