"""Multipliers that became part of the weights make the same training."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from transfer_sides import GPT2, LLAMA, NANOCHAT, side

from metatune.models import build
from metatune.transfer import Factor, Factors, factors_of
from metatune.transfer.enlarging import enlarged
from metatune.transfer.folding import folded

BLOCK = "model.layers.0."


def test_adam_does_not_see_the_units_of_a_weight():
    """`f(c W)` at a rate is `f(V)`, V = c W, with `in_units(c)`: against optax, in float64."""
    c, rate, decay, eps = 0.25, 0.1, 0.3, 0.02
    target = np.random.default_rng(0).normal(size=(3,))

    def loss(v):
        return jnp.sum((v - target) ** 2 * jnp.array([1.0, 0.1, 3.0]))

    def trained(loss, start, factor):
        # eps_root is zero: eps alone is in the units of a gradient.
        optimizer = optax.adamw(
            rate * factor.learning_rate,
            eps=eps * factor.eps,
            weight_decay=decay * factor.weight_decay,
        )
        w: Any = jnp.asarray(start) * factor.initial
        state = optimizer.init(w)
        for _ in range(20):
            updates, state = optimizer.update(jax.grad(loss)(w), state, w)
            w = optax.apply_updates(w, updates)
        return w

    with jax.enable_x64(True):
        start = np.array([1.0, -2.0, 0.5])
        multiplied = c * trained(lambda w: loss(c * w), start, Factor())
        absorbed = trained(loss, start, Factor().in_units(c))
        np.testing.assert_allclose(absorbed, multiplied, rtol=1e-12)
        assert np.abs(np.asarray(absorbed) - c * start).max() > 0.1


def plain(target, **multipliers):
    return Factors(dict.fromkeys(target.parameters, Factor()), **multipliers)


def changed(found):
    return {name for name, factor in found.parameters.items() if factor != Factor()}


def test_a_multiplier_of_branches_is_part_of_what_ends_them():
    target = side(config=GPT2)
    found = folded(plain(target, residual=0.5), target, target)
    ends = ("attn.c_proj.weight", "attn.c_proj.bias", "mlp.c_proj.weight", "mlp.c_proj.bias")
    assert changed(found) == {f"transformer.h.{layer}.{end}" for layer in (0, 1) for end in ends}
    assert found.parameters["transformer.h.1.attn.c_proj.weight"] == Factor(0.5, 2.0, 2.0, 0.5)
    assert found.residual == 1


def test_a_multiplier_of_the_logits_is_part_of_the_last_norm():
    tied = side(tie_word_embeddings=True)
    found = folded(plain(tied, logits=0.25), tied, tied)
    assert changed(found) == {"model.norm.weight"}
    assert found.parameters["model.norm.weight"] == Factor(0.25, 4.0, 4.0, 0.25)
    assert found.logits == 1


def test_norms_without_weights_take_no_multiplier():
    tied = side(config=NANOCHAT, tie_word_embeddings=True)
    found = folded(plain(tied, logits=0.25, attention=0.5, residual=0.5), tied, tied)
    assert (found.logits, found.attention, found.residual) == (0.25, 0.5, 1)
    ends = ("self_attn.o_proj.weight", "mlp.fc2.weight")
    assert changed(found) == {f"model.layers.{layer}.{end}" for layer in (0, 1) for end in ends}


def test_a_multiplier_of_scores_is_part_of_the_queries():
    target = side()
    found = folded(plain(target, attention=0.5), target, target)
    assert changed(found) == {f"model.layers.{n}.self_attn.q_proj.weight" for n in (0, 1)}
    fused = side(config=GPT2)
    assert folded(plain(fused, attention=0.5), fused, fused).attention == 0.5


GEMMA2 = {**LLAMA, "model_type": "gemma2", "head_dim": 4, "num_key_value_heads": 1}


def test_what_a_norm_takes_out_again_stays_a_multiplier():
    target = side(config=GEMMA2)
    found = folded(plain(target, residual=0.5, logits=0.5), target, target)
    assert (found.residual, found.logits) == (0.5, 0.5)
    assert changed(found) == set()


def test_embeddings_that_a_family_scales_by_its_width_are_drawn_smaller():
    """Gemma multiplies them by the root of the width; by muP they are as large at every width."""
    found = factors_of("adamw", side(config=GEMMA2), side("wide", enlarged(GEMMA2, width=4)), "mup")
    factor = found.parameters["model.embed_tokens.weight"]
    assert (factor.learning_rate, factor.initial) == pytest.approx((0.5, 0.5))
    assert found.logits == pytest.approx(0.5)  # a quarter, of weights that are half as large


def test_fresh_numbers_are_against_what_the_target_s_config_asks_for():
    proxy, target = side(), side("wide", enlarged(LLAMA, width=4), initializer_range=0.04)
    found = factors_of("adamw", proxy, target, "mup")
    # half of the proxy's 0.02 is wanted, 0.04 would be made
    assert found.parameters[BLOCK + "mlp.up_proj.weight"].initial == pytest.approx(0.25)
    assert found.parameters["model.embed_tokens.weight"].initial == pytest.approx(0.5)


def test_a_config_that_shrinks_with_the_depth_by_itself_is_not_shrunk_twice():
    """GPT-2 draws what ends a branch smaller by the root of the depth, CompleteP by all of it."""
    found = factors_of("adamw", side(config=GPT2), side("deep", GPT2, n_layer=8), "completep")
    factor = found.parameters["transformer.h.0.mlp.c_proj.weight"]
    assert factor.initial == pytest.approx(0.5)  # 1/4 wanted, 1/2 made
    assert factor.learning_rate == pytest.approx(0.25)


def test_logits_are_multiplied_where_the_last_norm_starts_smaller():
    model = build({**LLAMA, "tie_word_embeddings": True, "initializer_range": 0.5})
    target = side(tie_word_embeddings=True)
    factors = folded(plain(target, logits=0.25), target, target).parameters
    params, logits = jax.jit(model.init)(jax.random.key(0)), jax.jit(model.logits)
    smaller = jax.tree.map(
        lambda fresh, named: fresh * factors[named.names[0]].initial, params, model.names()
    )
    tokens = jnp.arange(6)[None]
    expected = 0.25 * np.asarray(logits(params, tokens))
    np.testing.assert_allclose(logits(smaller, tokens), expected, rtol=1e-6)
