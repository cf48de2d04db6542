"""Checkpoints come back as they were, and few are kept."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from metatune.hypergrad import State
from metatune.train.checkpoints import Position, TrainingCheckpoints


def state(seed: int) -> State:
    params = {"a": jax.random.normal(jax.random.key(seed), (3, 2)), "b": jnp.full(4, 1 / 3)}
    optimizer = optax.chain(
        optax.identity(),
        optax.scale_by_adam(),
        optax.add_decayed_weights(0.1, {"a": True, "b": False}),
    )
    opt_state = optimizer.init(params)
    return State(params, optimizer.update(params, opt_state, params)[1])


def test_the_newest_comes_back_bit_for_bit(tmp_path):
    like = jax.eval_shape(lambda: state(0))
    with TrainingCheckpoints(tmp_path, keep=2) as checkpoints:
        assert checkpoints.latest(like) is None
        for step in (1, 2, 3):
            checkpoints.save(Position(step, state(step), step / 3))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2", "3"]
    with TrainingCheckpoints(tmp_path, keep=2) as checkpoints:
        found = checkpoints.latest(like)
    assert found is not None
    assert (found.step, found.seconds) == (3, 1.0)
    assert jax.tree.structure(found.state) == jax.tree.structure(state(3))
    for got, want in zip(jax.tree.leaves(found.state), jax.tree.leaves(state(3)), strict=True):
        assert got.dtype == want.dtype
        np.testing.assert_array_equal(got, want)
