"""Sweeper: runs a sweep of a Hydra application as a study; what `hydra/sweeper=trialbus` does."""
