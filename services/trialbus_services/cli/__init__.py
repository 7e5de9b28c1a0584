"""Command line: the `trialbus` command, with a module for each of the larger subcommands."""
