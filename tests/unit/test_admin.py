"""Requests to the hub that are repeated because an answer was slow or lost."""

from __future__ import annotations

from typing import Any, cast

import pytest

from trialbus import HubRefusedError, Link
from trialbus.client.admin import forget_name
from trialbus.protocol import frames


class SlowLink:
    """A link on which only the answer to the last of several equal requests arrives."""

    def __init__(self, n_sent: int) -> None:
        self._n_sent = n_sent

    def next_request(self) -> int:
        return 1

    def attach(self, part: Any) -> None:
        for number in range(self._n_sent):
            part.work(_accept, 10.0 * number)
            part.work(_accept, 10.0 * number)  # because of another part of the link
        part.on_frame(frames.Refused(frames.CONFLICT, "the hub knows no durable name 'n'", 1))

    def detach(self, part: Any) -> None:
        return


def _accept(_frame: Any) -> bool:
    return True


def test_a_name_that_is_gone_when_the_request_is_repeated_is_forgotten() -> None:
    forget_name(cast("Link", SlowLink(2)), "n")
    with pytest.raises(HubRefusedError, match="no durable name"):
        forget_name(cast("Link", SlowLink(1)), "n")
