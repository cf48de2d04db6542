#!/usr/bin/env bash
# Muon's direction doesn't depend on the size of what is orthogonalised, so a correction for a momentum
# that starts at zero should leave it as it is, as it does without Nesterov. With Nesterov, optax divides
# the momentum by 1 - beta^(t+1) and the gradient that is added by 1 - beta^t, as NAdam does: in update 2
# the gradient counts half as much again as without a correction, in update 20 still 3 % more. So the
# first updates point elsewhere than those of the same equations without it, as PyTorch's
# torch.optim.Muon has them: 6 to 9 % of a direction of random gradients in updates 2 to 6, and nothing
# in the long run.
#
#   seen (optax 0.2.8, jax 0.10.2), apart from the plain form in updates 1 to 6 and 300:
#     nesterov   0.000 0.066 0.087 0.065 0.073 0.060 ... 0.000
#     without    0.000 throughout
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
python3 -m pip install -q --disable-pip-version-check --target "$place" "jax==0.10.2" "optax==0.2.8"
PYTHONPATH="$place" JAX_PLATFORMS=cpu python3 - <<'P'
import jax
import jax.numpy as jnp
import numpy as np
from optax.contrib import scale_by_muon

BETA, UPDATES = 0.95, 300
drawn = np.random.default_rng(0).normal(size=(UPDATES, 4, 3)).astype(np.float32)
plain = scale_by_muon(beta=0.0, nesterov=False)  # orthogonalises what it is given


def orthogonal(matrix):
    return plain.update(matrix, plain.init(matrix))[0]


found = {}
for nesterov in (True, False):
    muon = scale_by_muon(beta=BETA, nesterov=nesterov)
    update = jax.jit(muon.update)
    state, momentum, apart = muon.init(jnp.asarray(drawn[0])), np.zeros((4, 3), np.float32), []
    for gradient in drawn:
        direction, state = update(jnp.asarray(gradient), state)
        momentum = BETA * momentum + (1 - BETA) * gradient
        ahead = BETA * momentum + (1 - BETA) * gradient if nesterov else momentum
        expected = orthogonal(jnp.asarray(ahead))
        apart.append(float(jnp.linalg.norm(direction - expected) / jnp.linalg.norm(expected)))
    found[nesterov] = apart
    print("nesterov" if nesterov else "without ", *(f"{each:.3f}" for each in apart[:6] + apart[-1:]))
assert max(found[False]) < 1e-3, "this has changed"
assert found[True][0] < 1e-3 and min(found[True][1:6]) > 0.05, "this has changed"
assert found[True][-1] < 1e-3, "this has changed"
P
