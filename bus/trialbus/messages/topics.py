"""Topics of events and patterns over them.

A topic is `type/study/trial`, for example `evaluation_complete/digits/17`; a part that an event
does not have is empty (`study_submitted/digits/`). A pattern has the same three parts, each
either a value or `*`. Three fixed parts let the hub find the subscribers of an event by looking
up at most eight keys, however many subscribers there are.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import product

ANY = "*"

_ESCAPES = str.maketrans({"%": "%25", "/": "%2F", "*": "%2A"})


def topic(type_: str, study: str = "", trial: int | None = None) -> str:
    """Return the topic of an event.

    Example:
        >>> topic("prune", "digits", 17)
        'prune/digits/17'
    """
    return f"{type_}/{escaped(study)}/{'' if trial is None else trial}"


def escaped(study: str) -> str:
    """Return the name of a study as it stands in topics."""
    return study.translate(_ESCAPES)


def pattern(type_: str | None = None, study: str | None = None, trial: int | None = None) -> str:
    """Return the pattern that matches every topic with the parts given; `None` matches any.

    Example:
        >>> pattern("prune", "digits")
        'prune/digits/*'
    """
    return "/".join(
        (
            type_ or ANY,
            ANY if study is None else escaped(study),
            ANY if trial is None else str(trial),
        )
    )


def is_pattern(text: str) -> bool:
    """Tell whether `text` has the three parts of a pattern."""
    return text.count("/") == 2


@lru_cache(maxsize=1 << 16)
def patterns_of(topic_: str) -> tuple[str, ...]:
    """Return the eight patterns that match a topic, from `*/*/*` to the topic itself."""
    parts = topic_.split("/", 2)
    return tuple("/".join(choice) for choice in product(*((ANY, part) for part in parts)))


def matches(topic_: str, patterns: frozenset[str]) -> bool:
    """Tell whether one of `patterns` matches the topic."""
    return not patterns.isdisjoint(patterns_of(topic_))
