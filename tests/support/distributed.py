"""A rank of a distributed training that is pruned when the loss is high."""

from __future__ import annotations

import sys

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

import trialbus

rank, rendezvous, endpoint = int(sys.argv[1]), sys.argv[2], sys.argv[3]
dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2)
torch.manual_seed(0)  # pyright: ignore[reportUnknownMemberType]
steps = 0
with trialbus.attach(study="distributed", endpoint=endpoint, timeout_s=60) as trial:
    print(f"rank {trial.rank} trial {trial.number} {dict(trial.params)}", flush=True)
    model = DistributedDataParallel(torch.nn.Linear(4, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=trial.params["lr"])
    for step in range(1000):
        loss = model(torch.ones(8, 4) * (rank + 1)).square().mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()  # pyright: ignore[reportUnknownMemberType]
        steps += 1
        trial.report(step, {"loss": step})
print(f"rank {rank} ended after {steps} steps", flush=True)
dist.destroy_process_group()
