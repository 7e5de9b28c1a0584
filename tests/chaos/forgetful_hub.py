"""A control: a hub that does not drop repeated events."""

from __future__ import annotations

import sys

from trialbus.hub import hub, main
from trialbus.protocol import frames


class ForgetfulHub(hub.Hub):
    """A hub that logs an event as often as a publisher sends the event."""

    def _handle_publish(self, peer: bytes, message: frames.Publish) -> None:
        publisher = self._publisher_ids(message.publisher)
        last = self._change.publishers.get(publisher, self.log.publishers.get(publisher, 0))
        self._acks[peer, message.publisher] = None
        self._change.events += [
            (publisher, message.first + i, topic, body)
            for i, (topic, body) in enumerate(message.events)
        ]
        end = message.first + len(message.events) - 1
        self._change.publishers[publisher] = max(last, end)


if __name__ == "__main__":
    main.Hub = ForgetfulHub  # type: ignore[misc]
    sys.exit(main.main())
