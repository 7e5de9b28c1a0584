"""The keys of attributes are on disk in every storage that trialbus ever wrote to."""

from __future__ import annotations

import re
from pathlib import Path

import trialbus_services
from trialbus_services.optimizer import attributes

KEYS = {
    value
    for name, value in vars(attributes).items()
    if name.isupper() and value != attributes.PREFIX
}


def test_every_key_has_the_prefix_by_which_users_attributes_are_told_apart() -> None:
    assert KEYS
    assert all(re.fullmatch(attributes.PREFIX + "[a-z_]+", key) for key in KEYS)


def test_the_keys_that_storages_of_earlier_versions_have_stay() -> None:
    assert (
        " ".join(sorted(key.removeprefix(attributes.PREFIX) for key in KEYS))
        == "attempt cause causes curve elapsed_s end enqueued enqueued_by error foreign handed_out "
        "late metrics origin prune_reason pruned_by ran_s request reused skipped slot spec state "
        "submission suggestions thinned void worker"
    )


def test_no_other_module_spells_a_key_out() -> None:
    services = Path(trialbus_services.__file__).parent
    files = [path for path in services.rglob("*.py") if path != Path(attributes.__file__)]
    assert len(files) > 100
    spelled = re.compile(f"[\"']({'|'.join(KEYS)})[\"']")
    assert [path.name for path in files if spelled.search(path.read_text("utf-8"))] == []
