"""Launcher: submits studies and phases, with the services that are not up yet."""
