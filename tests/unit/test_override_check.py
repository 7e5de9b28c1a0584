"""Overrides that Hydra misunderstands: numbers as YAML writes them, names that are no text."""

from __future__ import annotations

import pytest

from trialbus_services.config.composing import ConfigError, compose_config


@pytest.mark.parametrize(
    ("override", "key", "number"),
    [
        ("+study.fixed.clip=.inf", "study.fixed.clip", "expected inf for"),
        ("study.params.lr.high=-.Inf", "study.params.lr.high", "expected -inf for"),
        ("+study.fixed.clips=[1.0, {a: .nan}]", "study.fixed.clips", "expected nan for"),
        ("study.target=.inf", "study.target", "expected inf for"),
    ],
    ids=["fixed", "bound", "inside", "setting"],
)
def test_a_number_as_yaml_writes_it_is_refused_with_the_form_of_hydra(
    override: str, key: str, number: str
) -> None:
    with (
        pytest.raises(ConfigError, match=number) as raised,
        compose_config(["study=digits", override]),
    ):
        pass
    assert raised.value.key == key


@pytest.mark.parametrize("override", ["sampler=[1]", "bus=[a, 2]", "+callbacks=[3.5]"])
def test_names_of_configs_that_are_no_text_are_refused(override: str) -> None:
    with (
        pytest.raises(ConfigError, match="expected names of configs"),
        compose_config(["study=digits", override]),
    ):
        pass


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("study.params=[1]", "is a list where a mapping belongs"),
        ("study.params=3", "is no mapping"),
        ("report.figures=3", "is no list"),
    ],
)
def test_a_list_in_the_place_of_a_mapping_is_named_without_classes(
    override: str, problem: str
) -> None:
    with (
        pytest.raises(ConfigError, match=problem),
        compose_config(["study=digits", override]),
    ):
        pass


def test_numbers_of_hydra_quoted_text_and_other_keys_are_taken_as_they_are() -> None:
    overrides = ["+study.fixed={a: inf, b: 1e-3, c: '.inf'}", "trainer.command=[python, .inf]"]
    with compose_config(["study=digits", *overrides]) as composed:
        fixed = composed.config.study.fixed
        assert (fixed.a, fixed.b, fixed.c) == (float("inf"), 0.001, ".inf")
        assert list(composed.config.trainer.command) == ["python", ".inf"]
