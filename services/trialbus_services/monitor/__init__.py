"""Live listeners: what happens in a study, shown while it happens."""
