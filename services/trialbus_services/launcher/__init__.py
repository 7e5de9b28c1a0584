"""Launcher: runs studies and phases, and starts the services that are missing."""
