"""Trainer: the code inside a training process, around the handle that `attach` returns."""
