"""Hub: the process that writes events to the log and hands them to subscribers."""
