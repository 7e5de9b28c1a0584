"""Worker: requests trials and runs the training of each trial in a separate process.

`service` has the slots, `training_process` runs a training under `process.guard`, the small program
between worker and training that ends the training when the worker is gone.
"""
