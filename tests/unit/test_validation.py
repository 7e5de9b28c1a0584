"""The conversion of data to types; errors name the key, the value and the expectation."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
import pytest

from trialbus import SpecError
from trialbus.study.validation import convert, find_nearest, format_expected


class Inner(msgspec.Struct, forbid_unknown_fields=True):
    count: int = 0
    level: Literal["low", "medium"] = "low"


class Outer(msgspec.Struct, forbid_unknown_fields=True):
    entries: list[Inner] = []
    limits: dict[Literal["high", "low"], int] = {}


@pytest.mark.parametrize(
    ("key", "data", "message"),
    [
        ("a", {"entry": []}, "a.entry: no such key; did you mean 'entries'?"),
        ("", {"entry": []}, "entry: no such key; did you mean 'entries'?"),
        ("a", {"zzz": []}, "a.zzz: no such key (expected one of entries, limits)"),
        ("a", {"entries": [{}, {"cont": 1}]}, "a.entries[1].cont: no such key; did you mean 'co"),
        ("", {"entries": [{"cont": 1}]}, "entries[0].cont: no such key; did you mean 'count'?"),
        ("", {"entries": [{"count": "x"}]}, "entries[0].count: Expected `int`, got `str` (got 'x"),
        ("", {"entries": {"a": 1}}, "entries: Expected `list`, got `mapping`"),
        ("a", {"limits": {"hihg": 1}}, "a.limits.hihg: no such key; did you mean 'high'?"),
        ("a", {"limits": {"high": "x"}}, "a.limits[...]: Expected `int`, got `str`"),
        ("", {"entries": [{"level": "medum"}]}, "entries[0].level: 'medum' is not an allowed val"),
    ],
)
def test_wrong_data_are_refused_by_key_and_value(key: str, data: Any, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        convert(key, data, Outer)
    assert str(caught.value).startswith(message)


def test_the_error_for_a_wrong_name_gives_the_nearest_name_or_all_names() -> None:
    assert find_nearest("meduim", ["low", "medium"]) == "medium"
    assert find_nearest("x", ["low", "medium"]) is None
    assert format_expected("meduim", ["low", "medium"]) == "; did you mean 'medium'?"
    assert format_expected("x", ["medium", "low"]) == " (expected one of low, medium)"
    assert format_expected("x", []) == ""
