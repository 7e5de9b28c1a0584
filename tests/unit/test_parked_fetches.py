"""A parked fetch is answered once, by any of the awaited topics or by the deadline."""

from __future__ import annotations

from trialbus.hub.parked import Parked, ParkedFetches
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
