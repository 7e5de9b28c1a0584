"""Sampling: the sampler of each study runs in a process, so that no sampler delays the optimizer.

`study_copy` is the copy of the study that the sampler reads, `sampler_process` answers requests
from the copy, and `suggester` is the part of the optimizer that sends the requests.
"""
