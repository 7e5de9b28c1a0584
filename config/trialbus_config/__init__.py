"""The Hydra tree of trialbus.

Importable, so that `pkg://trialbus_config` finds it in a checkout and in a wheel.
"""
