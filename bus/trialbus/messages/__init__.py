"""Messages: the events that travel, their topics, and how they become bytes."""
