"""Hub: the process that writes events to the log and delivers the log to subscribers."""
