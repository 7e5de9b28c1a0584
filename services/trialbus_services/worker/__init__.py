"""The worker: asks for trials and runs each as a process of its own.

`service` holds the slots, `process` runs one training, `guard` is the small program between worker
and training that sees to it that no training outlives its worker.
"""
