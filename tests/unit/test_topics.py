"""Topics of events, and patterns that match topics."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trialbus import load_spec
from trialbus.messages import events
from trialbus.messages.topics import is_pattern, make_pattern, make_topic, matches_any
from trialbus.protocol import frames

PARTS = st.none() | st.text(min_size=1, max_size=8)


@given(study=st.text(min_size=1), trial=st.integers(0, 10**6))
def test_any_study_name_gives_a_topic_of_three_parts(study: str, trial: int) -> None:
    assert is_pattern(make_topic("prune", study, trial))


@given(
    study=st.text(min_size=1, max_size=8),
    other=PARTS,
    trial=st.integers(0, 3),
    number=st.none() | st.integers(0, 3),
)
def test_a_pattern_matches_a_topic_with_the_same_study_and_trial(
    study: str, other: str | None, trial: int, number: int | None
) -> None:
    expected = (other is None or other == study) and (number is None or number == trial)
    assert (
        matches_any(
            make_topic("prune", study, trial), frozenset({make_pattern("prune", other, number)})
        )
        == expected
    )


@pytest.mark.parametrize("name", ["a/b", "*", "100%", "%2F"])
def test_study_names_with_special_characters_never_match_other_studies(name: str) -> None:
    assert matches_any(make_topic("stop", name), frozenset({make_pattern("stop", name)}))
    assert not matches_any(make_topic("stop", "plain"), frozenset({make_pattern("stop", name)}))


@pytest.mark.parametrize("name", ["x" * 200, "/" * 66, "*%" * 33])
def test_the_hub_accepts_every_pattern_of_a_study_with_the_longest_name(name: str) -> None:
    params = {"x": {"type": "float", "low": 0, "high": 1}}
    study = load_spec(
        {"name": name, "n_trials": 1, "objective": {"metric": "loss"}, "params": params},
        sampler={"type": "RandomSampler"},
        pruner=None,
    )
    for type_ in events.BUILT_IN:
        pattern = make_pattern(str(type_.__struct_config__.tag), study.name, 10**9)
        msgspec.convert([pattern], frames.Patterns)
