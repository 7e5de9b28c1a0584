"""A parked fetch is answered once, by any of the awaited topics or by the deadline."""

from __future__ import annotations

import weakref

from trialbus.hub.parked import Parked, ParkedFetches
from trialbus.protocol import limits
from trialbus.protocol.frames import Fetch


def park(
    fetches: ParkedFetches, peer: bytes, request: int, *patterns: str, deadline: float = 10.0
) -> Parked:
    fetch = Fetch(request, 0, list(patterns))
    parked = Parked(peer, fetch, 0, deadline, frozenset(patterns))
    fetches.park(parked)
    return parked


def test_an_event_finds_the_fetches_whose_patterns_match() -> None:
    fetches = ParkedFetches()
    everything = park(fetches, b"a", 1, "*/*/*")
    study = park(fetches, b"b", 1, "*/s/*", "prune/t/*")
    park(fetches, b"c", 1, "prune/s/*")
    assert set(fetches.take_matching(["trial_started/s/0"])) == {everything, study}
    assert fetches.take_matching(["trial_started/s/0"]) == []
    assert len(fetches) == 1
    assert fetches.count(b"c") == 1
    assert fetches.count(b"a") == 0


def test_a_fetch_that_matches_several_events_is_taken_once() -> None:
    fetches = ParkedFetches()
    parked = park(fetches, b"a", 1, "*/s/*", "prune/*/*")
    assert fetches.take_matching(["prune/s/0", "prune/s/1"]) == [parked]
    assert len(fetches) == 0


def test_fetches_are_overdue_in_the_order_of_their_deadlines() -> None:
    fetches = ParkedFetches()
    late = park(fetches, b"a", 1, "stop/*/*", deadline=3.0)
    early = park(fetches, b"a", 2, "stop/*/*", deadline=1.0)
    answered = park(fetches, b"b", 1, "prune/*/*", deadline=2.0)
    assert fetches.next_deadline() == 1.0
    assert list(fetches.take_overdue(0.9)) == []
    assert fetches.take_matching(["prune/s/0"]) == [answered]
    assert list(fetches.take_overdue(5.0)) == [early, late]
    assert fetches.next_deadline() is None


def test_a_request_number_that_is_used_again_replaces_the_fetch() -> None:
    fetches = ParkedFetches()
    park(fetches, b"a", 1, "prune/*/*")
    newer = park(fetches, b"a", 1, "stop/*/*")
    assert len(fetches) == 1
    assert fetches.take_matching(["prune/s/0"]) == []
    assert fetches.take_matching(["stop/s/"]) == [newer]


def test_fetches_that_take_too_much_memory_are_overdue_early_the_next_first() -> None:
    fetches = ParkedFetches()
    honest = park(fetches, b"honest", 1, "prune/*/*", deadline=1e9)
    patterns = [f"x_{i}".ljust(limits.MAX_TOPIC - 4, "x") + "/*/*" for i in range(limits.PATTERNS)]
    n_left, n_early = 1, 0
    for peer in range(4 * limits.OPEN_FETCHES_BYTES // (limits.PATTERNS * limits.MAX_TOPIC)):
        park(fetches, b"%d" % peer, 1, *patterns, deadline=60.0 + peer)
        early = list(fetches.take_overdue(0.0))
        assert honest not in early
        n_early += len(early)
        n_left += 1 - len(early)
        assert len(fetches) == n_left
    assert n_left * limits.PATTERNS * limits.MAX_TOPIC <= limits.OPEN_FETCHES_BYTES
    assert n_early


def test_an_answered_fetch_is_not_kept_until_its_deadline() -> None:
    fetches = ParkedFetches()
    references = [
        weakref.ref(park(fetches, b"a", 1, "prune/*/*", deadline=60.0)) for _ in range(5000)
    ]
    assert sum(reference() is not None for reference in references) == 1
    n_entries = len(fetches._deadlines)  # pyright: ignore[reportPrivateUsage]
    assert n_entries < 2000
    assert fetches.next_deadline() == 60.0
