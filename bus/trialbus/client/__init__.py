"""Client: a process's connection to the hub, with all that publishes and subscribes over it."""
