"""Collectors: metrics of programs that know nothing of trialbus, read while the programs train."""
