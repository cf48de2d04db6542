#!/usr/bin/env bash
# inject_hyperparams is how one tells optax a rate from outside. It casts every number of the optimizer,
# those that are not scheduled too, to the widest type of the parameters. Where all of these are bfloat16,
# b2 = 0.999 becomes 1: the second moment stays zero, its correction is 0 / 0, and the first update is NaN,
# of an optimizer that is sound without the wrapper. b2 = 0.997 becomes 0.996, with another memory of 250
# updates in the place of 333. One float32 parameter beside them, a norm say, heals all; and a group of
# optax.partition is widened by its own parameters alone, so that the group without the norm is lost again.
#
#   seen (optax 0.2.8, jax 0.10.2), Adam's first update of rate 0.01, and its b2:
#     float32                      plain -0.00999993 injected -0.01      b2 0.999
#     bfloat16                     plain -0.0100098  injected nan        b2 1.0
#     bfloat16, and one float32    plain -0.0100098  injected -0.01      b2 0.999
#     those two in groups          plain -0.0100098  injected nan
#     bfloat16, b2 = 0.997                           injected -0.0100098 b2 0.99609375
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
python3 -m pip install -q --disable-pip-version-check --target "$place" "jax==0.10.2" "optax==0.2.8"
PYTHONPATH="$place" JAX_PLATFORMS=cpu python3 - <<'P'
import jax
import jax.numpy as jnp
import numpy as np
import optax

RATE = 0.01
plain = optax.adam
injected = optax.inject_hyperparams(optax.adam)
small = {"w": jnp.ones(4, jnp.bfloat16)}
beside = small | {"norm": jnp.ones(4, jnp.float32)}


def parted(make):
    def made(rate, b2):
        kinds = {"w": make(rate, b2=b2), "norm": make(rate, b2=b2)}
        return optax.partition(kinds, {"w": "w", "norm": "norm"})

    return made


def first(make, params, b2=0.999):
    """The first update of `w`, and b2 as the optimizer has it."""
    optimizer = make(RATE, b2=b2)
    grads = jax.tree.map(lambda x: 2 * x, params)
    updates, state = optimizer.update(grads, optimizer.init(params), params)
    numbers = getattr(state, "hyperparams", {})
    return float(updates["w"][0]), float(numbers.get("b2", b2))


wide = {"w": jnp.ones(4, jnp.float32)}
for name, params, wrap in (
    ("float32", wide, lambda make: make),
    ("bfloat16", small, lambda make: make),
    ("bfloat16, and one float32", beside, lambda make: make),
    ("those two in groups", beside, parted),
):
    (without, _), (within, b2) = first(wrap(plain), params), first(wrap(injected), params)
    print(f"{name:28} plain {without:.6} injected {within:.6} b2 {b2}")
    assert np.isclose(without, -RATE, rtol=1e-2), "this has changed"
    lost = name in ("bfloat16", "those two in groups")
    assert np.isnan(within) if lost else np.isclose(within, -RATE, rtol=1e-2), "this has changed"
within, b2 = first(injected, small, b2=0.997)
print(f"{'bfloat16, b2 = 0.997':28} injected {within:.6} b2 {b2}")
assert b2 == 0.99609375 and np.isclose(within, -RATE, rtol=2e-2), "this has changed"
P
