"""The services around the bus: optimizer, worker, reporter, and the launcher that starts them."""
