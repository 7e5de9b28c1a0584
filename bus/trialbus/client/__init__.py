"""Client side of the bus: the connection to the hub, publishers, subscribers and sessions."""
