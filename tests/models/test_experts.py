"""Mixtures of experts: products by group, choices, and how evenly tokens are spread."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cells import cells

from metatune.inner.optimizers import decayed
from metatune.inner.trainable import trainable
from metatune.models import build
from metatune.models.dispatch import collect, spread
from metatune.models.experts import Routing, imbalance
from metatune.models.grouped import (
    at_once,
    block_size,
    by_stretch,
    grouped,
    in_order,
    ragged,
)
from metatune.models.stretch_products import cut, times_matrix
from metatune.recipe import schema
from metatune.recipe.faults import RecipeError
from metatune.transfer.sizes import parameters
from metatune.tunables.elements import elements

BY = (by_stretch, at_once, ragged)
ROWS, GROUPS, IN, OUT = 203, 5, 3, 4
OF: dict[str, np.ndarray] = {
    "uneven": np.random.default_rng(0).integers(0, GROUPS, ROWS) ** 2 % GROUPS,
    "all of one": np.full(ROWS, 3),
    "none of the last": np.arange(ROWS) % 2,
}
CONFIG = {
    "model_type": "qwen3_moe",
    "vocab_size": 48,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "initializer_range": 0.3,
    "head_dim": 4,
    "num_key_value_heads": 2,
    "moe_intermediate_size": 6,
    "num_experts": 6,
    "num_experts_per_tok": 2,
    "norm_topk_prob": True,
}


# Tiny models take longer to compile than to run.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def inwards(product):
    """A product by matrices [in, out]."""

    @functools.wraps(product)
    def by_transposed(x, matrices, order):
        return product(x, matrices.swapaxes(1, 2), order, transposed=True)

    return by_transposed


@pytest.mark.parametrize("product", [grouped, *BY, *map(inwards, BY)])
@pytest.mark.parametrize("of", cells(OF.keys(), {"all of one"}))
def test_each_row_meets_its_own_matrix_and_so_do_derivatives(of, product, float64):
    rng = np.random.default_rng(1)
    x, matrices = jnp.asarray(rng.normal(size=(ROWS, IN))), rng.normal(size=(GROUPS, OUT, IN))
    at = (x, jnp.asarray(matrices))
    groups = jnp.asarray(OF[of])
    order = in_order(groups, GROUPS)
    np.testing.assert_array_equal(order.row, np.argsort(OF[of], stable=True))
    np.testing.assert_array_equal(order.row[order.place], np.arange(ROWS))
    np.testing.assert_array_equal(order.sizes, np.bincount(OF[of], minlength=GROUPS))

    def in_stretches(x, matrices):
        return product(x[order.row], matrices, order)[order.place]

    def plain(x, matrices):
        return jnp.einsum("ri,roi->ro", x, matrices[groups])

    # JAX's ragged product can't be differentiated backward twice; MixFlow needs forward, of that.
    assert_same_derivatives(in_stretches, plain, at, twice=product.__name__ != "ragged")


def assert_same_derivatives(function, other, at, twice=True):
    """Values, gradients and how these move, in either mode, are the same to rounding."""

    def derivatives(function):
        def loss(*at):
            return jnp.sum(jnp.sin(function(*at)))

        direction = jax.tree.map(jnp.cos, at)
        gradient = jax.grad(loss, argnums=tuple(range(len(at))))
        moves = jax.jvp(gradient, at, direction)[1]
        turned = jax.vjp(gradient, *at)[1](direction) if twice else None
        return jax.jvp(function, at, direction), gradient(*at), moves, turned

    for got, want in zip(
        *(jax.tree.leaves(jax.jit(derivatives, static_argnums=0)(f)) for f in (function, other)),
        strict=True,
    ):
        np.testing.assert_allclose(got, want, atol=1e-12)


def test_tokens_to_their_rows_and_back_have_the_derivatives_of_taking_rows(float64):
    few, tokens = 3, 20
    rng = np.random.default_rng(3)
    chosen = np.argsort(rng.normal(size=(tokens, GROUPS)))[:, :few]
    order = in_order(jnp.asarray(chosen.reshape(-1)), GROUPS)
    x, y = (jnp.asarray(rng.normal(size=(rows, IN))) for rows in (tokens, tokens * few))

    def ours(x, y):
        return collect(spread(x, order) * y, order, tokens)

    def plain(x, y):
        rows = x[order.row // few] * y
        return jnp.sum(rows[order.place].reshape(tokens, few, IN), axis=1)

    assert_same_derivatives(ours, plain, (x, y))
    both = jnp.stack([x, 2 * x])
    together = jax.vmap(jax.grad(lambda x: jnp.sum(jnp.sin(ours(x, y)))))(both)
    for member, alone in zip(together, both, strict=True):
        own = jax.grad(lambda x: jnp.sum(jnp.sin(plain(x, y))))(alone)
        np.testing.assert_allclose(member, own, atol=1e-12)


@pytest.mark.parametrize("axes", [(0, None, None), (None, 0, None), (1, 0, 0)])
def test_a_batch_of_products_is_a_loop_over_them(axes, float64):
    rng = np.random.default_rng(2)
    sizes = jnp.bincount(jnp.asarray(OF["uneven"]), length=GROUPS)
    x = jnp.asarray(rng.normal(size=(ROWS, IN)))
    matrices = jnp.asarray(rng.normal(size=(GROUPS, OUT, IN)))
    given = [
        jnp.stack([part, part[::-1]], axis=0 if axis is None else axis)
        for part, axis in zip((x, matrices, sizes), axes, strict=True)
    ]
    given = [g if axis is not None else g[0] for g, axis in zip(given, axes, strict=True)]

    def gradient(x, matrices, sizes):
        def loss(x, matrices):
            return jnp.sum(jnp.sin(times_matrix(x, matrices, sizes)))

        return jax.grad(loss, argnums=(0, 1))(x, matrices)

    together = jax.vmap(gradient, in_axes=axes)(*given)
    for member in range(2):
        own = [
            g if axis is None else jnp.take(g, member, axis)
            for g, axis in zip(given, axes, strict=True)
        ]
        for got, want in zip(together, gradient(*own), strict=True):
            np.testing.assert_allclose(got[member], want, atol=1e-12)


def test_sizes_of_groups_have_no_tangent():
    x, matrices, sizes = jnp.ones((2, IN)), jnp.ones((2, OUT, IN)), jnp.array([1, 1])
    nowhere = np.zeros(2, jax.dtypes.float0)
    _, tangent = jax.jvp(lambda sizes: times_matrix(x, matrices, sizes), (sizes,), (nowhere,))
    np.testing.assert_array_equal(tangent, 0)


def test_an_adapter_beside_an_expert_is_added_to_it():
    model = build(CONFIG)
    params, hidden = jit(model.init)(jax.random.key(0)), jit(model.hidden)
    own = params["model"]["layers"]["mlp"]["experts"]["3"]["up_proj"]
    shape = own["weight"].shape
    a, b = (jax.random.normal(jax.random.key(n), s) for n, s in ((1, (2, 2, 16)), (2, (2, 6, 2))))
    tokens = jnp.arange(8).reshape(2, 4)
    before = hidden(params, tokens)
    own |= {"lora_A": a, "lora_B": b}
    beside = hidden(params, tokens)
    merged = {"weight": own["weight"] + b @ a}
    assert merged["weight"].shape == shape
    params["model"]["layers"]["mlp"]["experts"]["3"]["up_proj"] = merged
    np.testing.assert_allclose(beside, hidden(params, tokens), atol=1e-5)
    assert jnp.abs(beside - before).max() > 1e-2


def test_no_row_meets_the_matrices_of_all_groups():
    """Work is that of the chosen experts, at most twice, and of a short piece for each."""
    rng, cuts = np.random.default_rng(4), jax.jit(cut, static_argnums=1)
    shape = functools.partial(jax.ShapeDtypeStruct, dtype=jnp.float32)
    for rows, groups in ((4096, 8), (65536, 128), (64, 8), (1, 4)):
        spread_out = rng.multinomial(rows, np.full(groups, 1 / groups))
        skewed = rng.multinomial(rows, rng.dirichlet(np.full(groups, 0.3)))
        alone = np.eye(groups, dtype=int)[groups - 1] * rows
        for sizes in (spread_out, skewed, alone):
            met, ends, work, length = np.zeros(rows, int), np.cumsum(sizes), 0, 0
            for pieces in cuts(jnp.asarray(sizes), rows):
                number, length = int(pieces.number), int(pieces.length)
                work += number * length
                for group, start in np.stack([pieces.group, pieces.start])[:, :number].T:
                    assert ends[group] - sizes[group] <= start
                    met[start : min(start + length, ends[group])] += 1
            np.testing.assert_array_equal(met, 1)
            assert work <= 2 * rows + groups * length
            assert sizes is not spread_out or rows < 1000 or work <= 1.2 * rows
        # In blocks: by the operations of the whole, of which products of matrices are nearly all.
        wide, size = 256, block_size(rows, groups)
        of = (
            shape((rows, wide)),
            shape((groups, wide, wide)),
            in_order(jnp.zeros(rows, int), groups),
        )
        cost = jax.jit(at_once).lower(*of).cost_analysis()
        assert cost is not None
        products = cost["flops"] / (2 * wide**2)
        assert rows <= products <= 1.05 * (rows + groups * size)
        assert rows < 1000 or products <= 1.25 * rows


def test_no_array_has_tokens_and_experts_and_features(largest_array):
    config = {**CONFIG, "num_experts": 32, "moe_intermediate_size": 64}
    model = build(config)
    params = jax.eval_shape(model.init, jax.random.key(0))
    tokens = jnp.zeros((4, 64), jnp.int32)
    largest = largest_array(jax.grad(lambda p: model.hidden(p, tokens).sum()), params)
    assert largest < 4 * 64 * 32 * config["moe_intermediate_size"] / 2


def test_dense_and_sparse_blocks_are_stacked_apart_and_named_by_their_numbers():
    config = {**CONFIG, "num_hidden_layers": 5, "decoder_sparse_step": 2, "mlp_only_layers": [1]}
    model = build(config)
    blocks = model.names()["model"]["layers"]
    up = blocks["dense"]["mlp"]["up_proj"]["weight"]
    assert up.names == tuple(f"model.layers.{n}.mlp.up_proj.weight" for n in (0, 1, 2, 4))
    assert blocks["sparse"]["mlp"]["router"]["weight"].names == ("model.layers.3.mlp.gate.weight",)
    params = jax.eval_shape(model.init, jax.random.key(0))["model"]["layers"]
    assert params["dense"]["mlp"]["up_proj"]["weight"].shape == (4, 6144, 16)
    assert params["sparse"]["mlp"]["experts"]["0"]["up_proj"]["weight"].shape == (1, 6, 16)
    # What carries a schedule knows which block each parameter is of.
    for name, parameter in parameters(model).items():
        if name.startswith("model.layers."):
            assert parameter.layer == int(name.split(".")[2])


def test_experts_in_one_tensor_are_one_parameter_of_matrices_and_vectors():
    """Decayed, adapted and scaled as such, with an axis of the experts."""
    model = build(
        {
            "model_type": "gpt_oss",
            "vocab_size": 48,
            "hidden_size": 16,
            "intermediate_size": 6,
            "num_hidden_layers": 2,
            "num_attention_heads": 8,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
        }
    )
    names, shapes = model.names(), model.init_shapes()
    experts = names["model"]["layers"]["mlp"]["experts"]
    held = model.shapes()
    assert held["model.layers.1.mlp.experts.gate_up_proj"] == (4, 16, 12)
    assert held["model.layers.1.mlp.experts.down_proj_bias"] == (4, 16)
    assert held["model.layers.0.mlp.router.bias"] == (4,)
    assert held["model.layers.0.self_attn.sinks"] == (8,)
    assert experts["down_proj"].transposed and not experts["down_proj_bias"].transposed
    found = parameters(model)
    up = found["model.layers.1.mlp.experts.gate_up_proj"]
    down, bias = (found[f"model.layers.0.mlp.experts.down_proj{end}"] for end in ("", "_bias"))
    assert (up.role, up.into, up.out, up.writes) == ("matrix", 16, 12, False)
    assert (down.role, down.into, down.out, down.writes) == ("matrix", 6, 16, True)
    assert (bias.role, bias.out, bias.writes) == ("vector", 16, True)
    no_decay = set(held) - set(decayed(schema.AdamWSpec(learning_rate=1e-3), names, shapes))
    assert no_decay == {name for name in held if name.endswith(("bias", "sinks", "norm.weight"))}
    blocks = elements(experts, shapes["model"]["layers"]["mlp"]["experts"], "column").blocks
    assert blocks == ((2, 4, 6, 1), (2, 4, 1), (2, 4, 16, 1), (2, 4, 1))
    lora = schema.LoraSpec(targets=("experts",), rank=1)
    with pytest.raises(
        RecipeError, match=r"inner.lora.targets\[0\] = 'experts': matches no matrix"
    ):
        trainable(model, None, lora, False)


def test_of_equals_the_lower_is_chosen_and_gets_everything():
    model = build({**CONFIG, "num_experts_per_tok": 1})
    params = jit(model.init)(jax.random.key(0))
    router = params["model"]["layers"]["mlp"]["router"]
    router["weight"] = jnp.zeros_like(router["weight"])
    tokens = jnp.arange(8).reshape(2, 4)
    _, routing = jit(model.hidden_and_routing)(params, tokens)
    assert routing is not None
    np.testing.assert_array_equal(routing.chosen[..., 0], 4)
    assert float(routing.chosen.sum()) == 2 * 2 * 4

    @jit
    @jax.grad
    def gradient(params):
        return model.logits(params, tokens).var()

    experts = gradient(params)["model"]["layers"]["mlp"]["experts"]
    assert jnp.abs(experts["0"]["up_proj"]["weight"]).max() > 0
    for other in "12345":
        np.testing.assert_array_equal(experts[other]["up_proj"]["weight"], 0)


@pytest.mark.filterwarnings("ignore")  # of importing transformers
def test_imbalance_is_the_auxiliary_loss_of_transformers():
    import torch
    from transformers.models.qwen3_moe.modeling_qwen3_moe import load_balancing_loss_func

    layers, batch, tokens, experts, few = 3, 2, 5, 6, 2
    logits = np.random.default_rng(0).normal(size=(layers, batch * tokens, experts))
    each: Any = tuple(torch.tensor(logits).float())  # there typed as of one layer
    theirs = load_balancing_loss_func(each, experts, few)
    chosen = np.argsort(-logits, axis=-1)[..., :few].reshape(layers, batch, -1)
    counts = np.stack([[np.bincount(s, minlength=experts) for s in layer] for layer in chosen])
    weights = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    probability = weights.reshape(layers, batch, tokens, experts).sum(2)
    experts_of = jnp.asarray(chosen.reshape(layers, batch, tokens, few))
    routing = Routing(
        jnp.asarray(counts, jnp.float32), jnp.asarray(probability, jnp.float32), experts_of
    )
    for scale in (1.0, 3.0):
        ours = imbalance(routing, scale * jnp.ones(batch), tokens)
        assert float(ours) == pytest.approx(float(theirs), rel=1e-6)
    # Sequences that weigh nothing aren't counted.
    alone = Routing(*(part[:, :1] for part in routing))
    first = imbalance(routing, jnp.array([1.0, 0.0]), tokens)
    assert float(first) == pytest.approx(float(imbalance(alone, jnp.ones(1), tokens)), rel=1e-6)
    even = Routing(jnp.full((1, 1, 4), 5.0), jnp.full((1, 1, 4), 2.5), experts_of)
    assert float(imbalance(even, jnp.ones(1), 10)) == pytest.approx(2)
