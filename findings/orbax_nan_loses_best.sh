#!/usr/bin/env bash
# Orbax keeps the best checkpoints by a metric: max_to_keep with best_fn, or the policy BestN. One training
# step whose loss is NaN undoes that: the checkpoints are sorted by their metrics, and as a NaN is neither
# less nor more than anything, nothing moves across it. Here the best checkpoint of all is deleted, and a
# worse one called the best. An infinite loss in its place is sorted as one hopes.
#
#   seen (orbax-checkpoint 0.12.8, jax 0.10.2), two to be kept, the least loss the best:
#     losses of steps 0 to 4        kept     best_step()
#     1.0 2.0 inf 3.0 4.0           0 1      0
#     1.0 2.0 nan 3.0 4.0           3 4      3       (the losses 1.0 and 2.0 are gone)
#     3.0 2.0 nan 2.5 2.6           3 4      3
#     the same by BestN(n=2)        3 4      3
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
python3 -m pip install -q --disable-pip-version-check --target "$place" \
  "jax==0.10.2" "orbax-checkpoint==0.12.8"
PYTHONPATH="$place" JAX_PLATFORMS=cpu PLACE="$place" python3 - <<'P' 2>"$place/log" || { cat "$place/log"; exit 1; }
import math
import os
import tempfile

import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import BestN


def by_options():
    return ocp.CheckpointManagerOptions(
        max_to_keep=2, best_fn=lambda metrics: metrics["loss"], best_mode="min"
    )


def by_policy():
    keep = BestN(get_metric_fn=lambda metrics: metrics["loss"], reverse=True, n=2)
    return ocp.CheckpointManagerOptions(
        preservation_policy=keep, best_fn=lambda metrics: metrics["loss"], best_mode="min"
    )


def kept(losses, options):
    folder = tempfile.mkdtemp(dir=os.environ["PLACE"])
    with ocp.CheckpointManager(folder, options=options()) as manager:
        for step, loss in enumerate(losses):
            state = ocp.args.StandardSave({"loss": np.array([loss])})
            manager.save(step, args=state, metrics={"loss": loss})
            manager.wait_until_finished()
        return sorted(manager.all_steps()), manager.best_step()


nan, inf = math.nan, math.inf
for losses, options, expected in (
    ([1.0, 2.0, inf, 3.0, 4.0], by_options, ([0, 1], 0)),
    ([1.0, 2.0, inf, 3.0, 4.0], by_policy, ([0, 1], 0)),
    ([1.0, 2.0, nan, 3.0, 4.0], by_options, ([3, 4], 3)),
    ([3.0, 2.0, nan, 2.5, 2.6], by_options, ([3, 4], 3)),
    ([3.0, 2.0, nan, 2.5, 2.6], by_policy, ([3, 4], 3)),
):
    found = kept(losses, options)
    print(*losses, options.__name__, "kept", found[0], "best", found[1], flush=True)
    assert found == expected, "this has changed"
P
