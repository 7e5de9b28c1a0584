"""Trainer: what runs inside a training process, around the handle that `attach` returns."""
