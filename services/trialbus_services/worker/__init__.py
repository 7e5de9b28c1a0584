"""The worker: asks for trials and runs each as a process of its own.

`service` holds the slots, `training_process` runs one training under the guard of `process.guard`,
the small program between worker and training that lets no training outlive its worker.
"""
