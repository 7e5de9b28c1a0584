"""Command line: the `trialbus` command, one module for each of its tools."""
