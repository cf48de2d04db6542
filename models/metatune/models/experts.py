"""A mixture of experts: MLPs of which each token passes through the few that a router chooses.

The choice is piecewise constant. Derivatives of any order are those at the choices made: by the
weights that the chosen ones have, and by the experts' own numbers, not by the choice. Where two
experts are equally likely, the one of lower number is chosen and gets everything.

Source: Shazeer et al., Outrageously Large Neural Networks, 2017; dropless as Gale et al.,
MegaBlocks, 2022.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from metatune.models.architecture import ACTIVATIONS, Architecture, ClampedGate, ExpertLayer
from metatune.models.dispatch import collect, spread
from metatune.models.grouped import Order, counts, grouped, in_order
from metatune.models.layout import Layout
from metatune.models.modules import LORA_A, LORA_B
from metatune.models.names import EXPERTS

Matrices = tuple[jax.Array, ...]
"""Those of all experts of a block."""


class Routing(NamedTuple):
    """What a router did with the tokens of each sequence.

    Attributes:
        chosen: times that each expert was chosen, summed over them, [..., batch, experts].
        probability: that it was given, likewise, [..., batch, experts].
        experts: the numbers of those that each token passed through, the likeliest first,
            [..., batch, seq, chosen].
    """

    chosen: jax.Array
    probability: jax.Array
    experts: jax.Array


def _weight(module: nn.Module, out: int, into: int, stddev: float) -> jax.Array:
    """A module's matrix [out, in]; where it has an adapter, with its product added."""
    normal = nn.initializers.normal(stddev)
    weight = module.param("weight", normal, (out, into), jnp.float32)
    if module.has_variable("params", LORA_A):
        a, b = (module.get_variable("params", matrix) for matrix in (LORA_A, LORA_B))
        weight = weight + b @ a
    return weight


class Weight(nn.Module):
    """A matrix [out, in]."""

    out: int
    into: int
    stddev: float

    @nn.compact
    def __call__(self, dtype: jnp.dtype) -> jax.Array:
        """The matrix."""
        return _weight(self, self.out, self.into, self.stddev).astype(dtype)


class Router(nn.Module):
    """What chooses: a logit for each expert."""

    count: int
    stddev: float
    use_bias: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [tokens, hidden] to [tokens, experts]."""
        weight = _weight(self, self.count, x.shape[-1], self.stddev).astype(x.dtype)
        logits = jax.lax.dot_general(x, weight, (((1,), (1,)), ((), ())))
        if not self.use_bias:
            return logits
        normal = nn.initializers.normal(self.stddev)
        bias = self.param("bias", normal, (self.count,), jnp.float32)
        return logits + bias.astype(x.dtype)[None, :]


class Expert(nn.Module):
    """The matrices of one MLP: gate, up, down."""

    architecture: Architecture
    wide: int

    @nn.compact
    def __call__(self, dtype: jnp.dtype) -> tuple[jax.Array, jax.Array, jax.Array]:
        """The three."""
        a, wide = self.architecture, self.wide
        hidden, stddev = a.hidden_size, a.initializer_range
        gate = Weight(wide, hidden, stddev, name="gate_proj")(dtype)
        up = Weight(wide, hidden, stddev, name="up_proj")(dtype)
        down = Weight(hidden, wide, a.mlp_output_initializer_range, name="down_proj")(dtype)
        return gate, up, down


class Experts(nn.Module):
    """Experts by number, as most checkpoints have them."""

    architecture: Architecture
    layer: ExpertLayer

    @nn.compact
    def __call__(self, dtype: jnp.dtype) -> Matrices:
        """What `plain` takes: [experts, 2 wide, hidden] and [experts, hidden, wide]."""
        a, wide = self.architecture, self.layer.intermediate_size
        each = [Expert(a, wide, name=str(n))(dtype) for n in range(self.layer.count)]
        both = jnp.concatenate([matrix for gate, up, _ in each for matrix in (gate, up)])
        both = both.reshape(-1, 2 * wide, a.hidden_size)
        return both, jnp.stack([down for _, _, down in each])


class ClampedExperts(nn.Module):
    """Experts with biases and a clamped gate, those of a block in one array each.

    Source: OpenAI, gpt-oss-120b & gpt-oss-20b Model Card, 2025, section 2.2.
    """

    architecture: Architecture
    layer: ExpertLayer

    @nn.compact
    def __call__(self, dtype: jnp.dtype) -> Matrices:
        """What `gated` takes: [experts, in, out] and [experts, 1, out], of both projections."""
        a, count, wide = self.architecture, self.layer.count, self.layer.intermediate_size
        zeros, found = nn.initializers.zeros, []
        for name, into, out, stddev in (
            ("gate_up_proj", a.hidden_size, 2 * wide, a.initializer_range),
            ("down_proj", wide, a.hidden_size, a.mlp_output_initializer_range),
        ):
            normal = nn.initializers.normal(stddev)
            weight = self.param(name, normal, (count, into, out), jnp.float32)
            bias = self.param(f"{name}_bias", zeros, (count, out), jnp.float32)
            found += [weight.astype(dtype), bias.astype(dtype)[:, None, :]]
        return tuple(found)


def plain(
    activation: Callable[[jax.Array], jax.Array],
    matrices: Matrices,
    x: jax.Array,
    share: jax.Array,
    order: Order,
) -> jax.Array:
    """Maps rows in the order of their experts, [rows, hidden], to the same shape.

    Weights of the rows, [rows, 1], are applied where they are narrow, to what is projected down.
    """
    both, down = matrices
    wide = both.shape[1] // 2
    gate, up = jax.lax.split(grouped(x, both, order), (wide, wide), axis=1)
    return grouped(activation(gate) * up * share, down, order)


def gated(
    how: ClampedGate, matrices: Matrices, x: jax.Array, share: jax.Array, order: Order
) -> jax.Array:
    """As `plain`, with biases and a clamped gate."""

    def project(x: jax.Array, share: jax.Array, weight: jax.Array, bias: jax.Array) -> jax.Array:
        y = grouped(x, weight, order, transposed=True)
        return y + grouped(share, bias, order, transposed=True)

    into, into_bias, down, down_bias = matrices
    both = project(x, jnp.ones_like(share), into, into_bias)
    inner = clamped(both[..., ::2], both[..., 1::2], how) * share
    return project(inner, share, down, down_bias)


def clamped(gate: jax.Array, up: jax.Array, how: ClampedGate) -> jax.Array:
    """`(u + 1) g σ(α g)`, with g up to the limit and u between its negative and it."""
    gate, up = jnp.minimum(gate, how.limit), jnp.clip(up, -how.limit, how.limit)
    return (up + 1) * gate * jax.nn.sigmoid(how.alpha * gate)


class MixtureOfExperts(nn.Module):
    """Gated MLPs, a few for each token, weighted by the probabilities that a router gives them."""

    architecture: Architecture
    layer: ExpertLayer
    layout: Layout | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, Routing]:
        """Maps [batch, seq, hidden] to the same shape, and says where tokens went."""
        a, count, few = self.architecture, self.layer.count, self.layer.chosen
        batch, hidden = x.shape[0], x.shape[-1]
        flat = x.reshape(-1, hidden)
        gate, stddev = self.layer.clamped, a.initializer_range
        logits = Router(count, stddev, gate is not None, name="router")(flat)
        wide = jnp.promote_types(x.dtype, jnp.float32)
        probability = jax.nn.softmax(logits.astype(wide), axis=-1)
        weights, chosen = jax.lax.top_k(probability, few)
        if self.layer.normalised:
            weights = weights / jnp.sum(weights, axis=-1, keepdims=True)
        if gate is None:
            matrices = Experts(a, self.layer, name=EXPERTS)(x.dtype)
            each = partial(plain, ACTIVATIONS[a.hidden_act])
        else:
            matrices = ClampedExperts(a, self.layer, name=EXPERTS)(x.dtype)
            each = partial(gated, gate)

        def through(
            tokens: jax.Array, weights: jax.Array, chosen: jax.Array, matrices: Matrices
        ) -> jax.Array:
            order = in_order(chosen.reshape(-1), count)
            share = spread(weights.reshape(-1, 1), order).astype(tokens.dtype)
            out = each(matrices, spread(tokens, order), share, order)
            return collect(out, order, tokens.shape[0])

        if self.layout is not None:
            through = self.layout.by_part(through, batch)
        out = through(flat, weights, chosen, matrices)
        routing = Routing(
            counts(chosen.reshape(batch, -1), count).astype(wide),
            jnp.sum(probability.reshape(batch, -1, count), axis=1),
            chosen.reshape(batch, -1, few),
        )
        return out.reshape(x.shape), routing


def imbalance(routing: Routing, weights: jax.Array, tokens: int) -> jax.Array:
    """How unevenly experts are used: `E Σ_e f_e P_e` over the tokens of all layers together.

    f_e is the share of tokens that choose expert e, P_e its mean probability. As many as a token
    chooses if all are used alike.

    Args:
        routing: of all layers, [layers, batch, experts].
        weights: of the sequences; they needn't average one.
        tokens: of a sequence.

    Source: Fedus et al., Switch Transformers, 2021, equations 4 to 6.
    """
    layers, _, count = routing.chosen.shape
    over = layers * tokens * jnp.sum(weights)
    share, mean = (
        jnp.einsum("b,lbe->e", weights.astype(part.dtype), part)
        for part in (routing.chosen, routing.probability)
    )
    return count * jnp.sum(share * mean) / over**2
