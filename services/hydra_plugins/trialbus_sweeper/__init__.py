"""Plugin of Hydra: the sweeper that is chosen by `hydra/sweeper=trialbus`.

Hydra imports this package in every Hydra application of the environment, so it imports nothing but
Hydra until the sweeper is chosen.
"""
