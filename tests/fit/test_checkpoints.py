"""Checkpoints come back as they were."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from metatune.fit.searching.checkpoints import SearchCheckpoints
from metatune.fit.searching.search import Search


def search(step: int, seed: int) -> Search:
    eta = {"mixture": jax.random.normal(jax.random.key(seed), (2, 3)), "rates": jnp.ones((4,))}
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.1))
    state = optimizer.init(eta)
    _, state = optimizer.update(eta, state)
    return Search(step, eta, state, jax.tree.map(lambda leaf: leaf / 3, eta), seed)


def test_the_newest_comes_back_bit_for_bit(tmp_path):
    saved = search(2, 7)._replace(best_held_out=1 / 3)
    with SearchCheckpoints(tmp_path) as checkpoints:
        assert checkpoints.latest(lambda phase: search(0, 0)) is None
        checkpoints.save(search(1, 5))
        checkpoints.save(saved)
    with SearchCheckpoints(tmp_path) as checkpoints:
        restored = checkpoints.latest(lambda phase: search(0, 0))
    assert restored is not None
    assert jax.tree.structure(restored) == jax.tree.structure(saved)
    for got, want in zip(jax.tree.leaves(restored), jax.tree.leaves(saved), strict=True):
        np.testing.assert_array_equal(got, want)
    assert restored.best_held_out == 1 / 3
