#!/usr/bin/env bash
# A scheduler that accelerate has prepared is stepped once for each process at every update, so that
# its length counts batches of one process. For OneCycleLR, which raises beyond its end, there is a
# guard; it isn't for its type but for an attribute: any scheduler that keeps its length in
# `total_steps` stands still from there on, and one that calls it otherwise goes on. With two
# processes two schedules that differ in the name of an attribute part after half of their length.
#
#   seen (accelerate 1.15.0, torch 2.13.0, 2 processes): after 1 to 6 updates, of a length of 6,
#   `length`: 2 4 6 8 10 12; `total_steps`: 2 4 6 6 6 6
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
python3 -m pip install -q --disable-pip-version-check --target "$place" "torch==2.13.0" "accelerate==1.15.0" numpy
cat > "$place/steps.py" <<'P'
import sys

import torch
from accelerate import Accelerator


class Counting(torch.optim.lr_scheduler.LRScheduler):
    """Counts its steps; a rate of 1 whatever they are."""

    def __init__(self, optimizer, name):
        setattr(self, name, 6)
        super().__init__(optimizer)

    def get_lr(self):
        return [1.0 for _ in self.optimizer.param_groups]


accelerator = Accelerator(cpu=True)
found = {}
for name in ("length", "total_steps"):
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    optimizer, schedule = accelerator.prepare(optimizer, Counting(optimizer, name))
    found[name] = []
    for _ in range(6):
        weight.grad = torch.ones(1)
        optimizer.step()
        schedule.step()
        found[name].append(schedule.scheduler.last_epoch)
if accelerator.is_main_process:
    print(accelerator.num_processes, "processes:", found)
    assert found["length"] == [2, 4, 6, 8, 10, 12], "this has changed"
    assert found["total_steps"] == [2, 4, 6, 6, 6, 6], "this has changed"
P
PYTHONPATH="$place" python3 -m torch.distributed.run --nproc-per-node 2 --master-port 29517 "$place/steps.py"
