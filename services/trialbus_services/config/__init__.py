"""Config: the composed Hydra config, checked and typed. Imports no service."""
