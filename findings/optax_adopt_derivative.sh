#!/usr/bin/env bash
# ADOPT divides by max(sqrt(v), eps), so a parameter whose gradient has always been zero, the weight of
# a feature that is never on, is divided by eps: the training is as it should be. Who differentiates
# through it (a learning rate, by the loss in the end) gets NaN, as soon as there are three updates: the
# maximum passes a zero on to the root's derivative at zero, and v depends on the rate from the second
# gradient on. One such weight is enough, though nothing depends on it. Adam has eps_root against
# this; scale_by_adopt has nothing of the kind.
#
#   seen (optax 0.2.8, jax 0.10.2), d loss / d rate after 2, 3 and 5 updates, by jax.grad:
#     adopt, a feature that is on        -0.396  -1.1187 -3.197   (central differences say the same)
#     adopt, and one that never is       -0.396     nan     nan   (differences: as above)
#     adam, likewise, eps_root 1e-12     -6.3716 -8.3095 -9.7411  (differences say the same)
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
python3 -m pip install -q --disable-pip-version-check --target "$place" "jax==0.10.2" "optax==0.2.8"
PYTHONPATH="$place" JAX_PLATFORMS=cpu JAX_ENABLE_X64=1 python3 - <<'P'
import jax
import jax.numpy as jnp
import numpy as np
import optax
from optax.contrib import scale_by_adopt

FEATURES = jnp.array([1.0, 0.0])
COUNTS, RATE, STEP = (2, 3, 5), 0.2, 1e-5


def after(direction, rate, start, updates):
    def loss(w):
        return (FEATURES[: len(w)] @ w - 2) ** 2

    w, state = start, direction.init(start)
    for _ in range(updates):
        along, state = direction.update(jax.grad(loss)(w), state)
        w = w - rate * along
    return loss(w)


def derivatives(direction, start):
    exact = [float(jax.grad(after, 1)(direction, RATE, start, n)) for n in COUNTS]
    sides = [[after(direction, RATE + s * STEP, start, n) for n in COUNTS] for s in (1, -1)]
    return np.array(exact), (np.array(sides[0]) - np.array(sides[1])) / (2 * STEP)


adopt, adam = scale_by_adopt(), optax.scale_by_adam(eps_root=1e-12)
alone, beside = jnp.zeros(1), jnp.zeros(2)
found = {
    "adopt, a feature that is on": derivatives(adopt, alone),
    "adopt, and one that never is": derivatives(adopt, beside),
    "adam, likewise, eps_root 1e-12": derivatives(adam, beside),
}
for name, (exact, differences) in found.items():
    print(f"{name:34}", exact.round(4), "by differences", differences.round(4))
exact, differences = found["adopt, a feature that is on"]
assert np.allclose(exact, differences, rtol=1e-5), "this has changed"
exact, again = found["adopt, and one that never is"]
assert np.allclose(again, differences) and np.isnan(exact[1:]).all(), "this has changed"
assert np.isfinite(found["adam, likewise, eps_root 1e-12"][0]).all(), "this has changed"
P
