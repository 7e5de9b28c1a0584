"""Command line: the `trialbus` command, and a module for each larger subcommand."""
