"""Topics of events, and patterns that select topics.

A topic is `type/study/trial`, for example `evaluation_complete/digits/17`; a part that an event
does not have is empty (`study_submitted/digits/`). A pattern has the same three parts, each
either a value or `*`. Since there are three parts, the hub finds the subscribers of an event by
looking up eight keys at most, however many subscribers there are.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import product

ANY = "*"

_ESCAPES = str.maketrans({"%": "%25", "/": "%2F", "*": "%2A"})


def make_topic(type_: str, study: str = "", trial: int | None = None) -> str:
    """Return the topic of an event.

    Example:
        >>> make_topic("prune", "digits", 17)
        'prune/digits/17'
    """
    return f"{type_}/{escape_study(study)}/{'' if trial is None else trial}"


def escape_study(study: str) -> str:
    """Return the name of a study in the form in which topics contain the name."""
    return study.translate(_ESCAPES)


def make_pattern(
    type_: str | None = None, study: str | None = None, trial: int | None = None
) -> str:
    """Return the pattern for the given type, study and trial; None matches any.

    Example:
        >>> make_pattern("prune", "digits")
        'prune/digits/*'
    """
    return "/".join(
        (
            type_ or ANY,
            ANY if study is None else escape_study(study),
            ANY if trial is None else str(trial),
        )
    )


def is_pattern(text: str) -> bool:
    """Tell whether a text has the three parts of a pattern."""
    return text.count("/") == 2


@lru_cache(maxsize=1 << 16)
def list_matching_patterns(topic: str) -> tuple[str, ...]:
    """Return the eight patterns that match a topic, from `*/*/*` to the exact topic."""
    parts = topic.split("/", 2)
    return tuple("/".join(choice) for choice in product(*((ANY, part) for part in parts)))


def matches_any(topic: str, patterns: frozenset[str]) -> bool:
    """Tell whether any of the patterns matches the topic."""
    return not patterns.isdisjoint(list_matching_patterns(topic))
