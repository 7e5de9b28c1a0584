"""Messages: the events that travel, event topics, and the encoding of events."""
