"""Topics and patterns."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trialbus.messages.topics import is_pattern, matches, pattern, topic

PARTS = st.none() | st.text(min_size=1, max_size=8)


@given(study=st.text(min_size=1), trial=st.integers(0, 10**6))
def test_any_study_name_gives_a_topic_of_three_parts(study: str, trial: int) -> None:
    assert is_pattern(topic("prune", study, trial))


@given(
    study=st.text(min_size=1, max_size=8),
    other=PARTS,
    trial=st.integers(0, 3),
    number=st.none() | st.integers(0, 3),
)
def test_a_pattern_matches_what_it_says(
    study: str, other: str | None, trial: int, number: int | None
) -> None:
    expected = (other is None or other == study) and (number is None or number == trial)
    assert (
        matches(topic("prune", study, trial), frozenset({pattern("prune", other, number)}))
        == expected
    )


@pytest.mark.parametrize("name", ["a/b", "*", "100%", "%2F"])
def test_names_with_special_characters_stay_apart(name: str) -> None:
    assert matches(topic("stop", name), frozenset({pattern("stop", name)}))
    assert not matches(topic("stop", "plain"), frozenset({pattern("stop", name)}))
