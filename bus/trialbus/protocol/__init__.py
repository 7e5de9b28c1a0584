"""Protocol: frames between client and hub, limits, and permissions to send and read."""
