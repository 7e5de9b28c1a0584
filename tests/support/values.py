"""Strategies of hypothesis for values that a study may hold, and for names."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import strategies as st

#: Text that YAML, Hydra, OmegaConf, a shell or a number parser reads as something else.
TRICKY_TEXT = [
    *("", " ", " a", "a ", "1e-3", "1_000", "007", "0x1f", "1.", ".5", "-1", "1:30", "1e999"),
    *("null", "~", "None", "true", "True", "yes", "no", "on", "off", "y", "nan", ".nan", "inf"),
    *(".inf", "-inf", "Infinity", "2024-01-01", "=", "<<", "!!str x", "&a", "*a", "- a", "a: b"),
    *("#", "a #b", "'", '"', "''", "it's", "\\", "\\'", "\\\\'", "a\\", "a,b", "[1]", "{a: 1}"),
    *("(", ")", "a=b", "--x=1", "$HOME", "${", "${a}", "\\${a}", "a\\\\${b}", "`id`", "%s", "a\nb"),
    *(
        "\n",
        "\t",
        "\r\n",
        "\x85",
        "\u2028",
        "\x07",
        "\ufeff",
        "é",
        "日本",
        "🙂",
        "a@b",
        "x:y",
        "???",
    ),
    *("{study}", "{params_file}", "choice(1, 2)", "glob(*)", "1,2", "a b", "|", ">", "%", "@"),
]

TEXT = st.sampled_from(TRICKY_TEXT) | st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12
)
INTEGERS = st.integers(-(2**63), 2**64 - 1) | st.sampled_from([0, 1, 2**53 + 1, 2**64 - 1])
FLOATS = st.floats() | st.sampled_from(
    [math.inf, -math.inf, math.nan, 0.0, 1.0, 1e-3, 1e22, 5e-324]
)
SCALARS: st.SearchStrategy[Any] = st.none() | st.booleans() | INTEGERS | FLOATS | TEXT
VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
