"""Build notifiers from the section `notify` of the config."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, cast

from trialbus.errors import SpecError
from trialbus.study.user_code import load_function
from trialbus.study.validation import is_mapping
from trialbus_services.config.sections import read_plain
from trialbus_services.notify.notice import Notifier


def build_notifiers(config: Mapping[str, Any]) -> dict[str, Notifier]:
    """Build the notifiers of a composed config by name.

    Classes of your own are found from the folder of this process, or in its environment.

    Raises:
        SpecError: A notifier cannot be built; names the key.
    """
    entries = read_plain(config, "notify", optional=True)
    if not entries:
        return {}
    if not is_mapping(entries):
        raise SpecError("notify", f"{entries!r} is not a mapping of names to notifiers")
    return {str(name): _build(str(name), entry) for name, entry in entries.items()}


def _build(name: str, entry: Any) -> Notifier:
    # Most studies have no notifier.
    import hydra.utils
    from hydra.errors import InstantiationException

    key = f"notify.{name}"
    if not re.fullmatch(r"[\w.-]+", name):
        raise SpecError(key, "is not a name (expected letters, digits, '_', '.' and '-')")
    if not is_mapping(entry) or "_target_" not in entry:
        example = "_target_: trialbus_services.notify.Webhook"
        raise SpecError(key, f"names no notifier (expected a mapping with {example})")
    target = load_function(f"{key}._target_", entry["_target_"])
    try:
        notifier = hydra.utils.instantiate({**entry, "_target_": target}, _convert_="all")
    except InstantiationException as error:
        # The values may be secrets: only what Python says of them is told.
        reason = error.__cause__ or error
        message = str(reason).splitlines()[0]
        raise SpecError(key, f"{entry['_target_']}: {type(reason).__name__}: {message}") from None
    if not callable(notifier):
        raise SpecError(key, f"{entry['_target_']} is not a notifier: it cannot be called")
    return cast("Notifier", notifier)
