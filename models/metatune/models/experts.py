"""A mixture of experts: MLPs of which each token passes through the few that a router chooses.

The choice is piecewise constant. Derivatives of any order are those at the choices made: by the
weights that the chosen ones have, and by the experts' own numbers, not by the choice. Where two
experts are equally likely, the one of lower number is chosen and gets everything.

Source: Shazeer et al., Outrageously Large Neural Networks, 2017; dropless as Gale et al.,
MegaBlocks, 2022.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from metatune.models.architecture import ACTIVATIONS, Architecture, ExpertLayer
from metatune.models.grouped import grouped, in_blocks
from metatune.models.modules import LORA_A, LORA_B


class Routing(NamedTuple):
    """What a router did with the tokens of each sequence, summed over them.

    Attributes:
        chosen: times that each expert was chosen, [..., batch, experts].
        probability: that it was given, [..., batch, experts].
    """

    chosen: jax.Array
    probability: jax.Array


class Weight(nn.Module):
    """A matrix [out, in]; where the parameters hold an adapter, with its product added."""

    out: int
    into: int
    stddev: float

    @nn.compact
    def __call__(self, dtype: jnp.dtype) -> jax.Array:
        """The matrix."""
        normal = nn.initializers.normal(self.stddev)
        weight = self.param("weight", normal, (self.out, self.into), jnp.float32)
        if self.has_variable("params", LORA_A):
            a, b = (self.get_variable("params", matrix) for matrix in (LORA_A, LORA_B))
            weight = weight + b @ a
        return weight.astype(dtype)


class Expert(nn.Module):
    """The matrices of one MLP: gate, up, down."""

    architecture: Architecture

    @nn.compact
    def __call__(self, dtype: jnp.dtype) -> tuple[jax.Array, jax.Array, jax.Array]:
        """The three."""
        a = self.architecture
        wide, hidden, stddev = a.intermediate_size, a.hidden_size, a.initializer_range
        gate = Weight(wide, hidden, stddev, name="gate_proj")(dtype)
        up = Weight(wide, hidden, stddev, name="up_proj")(dtype)
        down = Weight(hidden, wide, a.residual_initializer_range, name="down_proj")(dtype)
        return gate, up, down


class Experts(nn.Module):
    """Experts by number, as a checkpoint has them, stacked."""

    architecture: Architecture
    count: int

    @nn.compact
    def __call__(self, dtype: jnp.dtype) -> tuple[jax.Array, ...]:
        """Gate, up and down of all, [experts, out, in] each."""
        each = [Expert(self.architecture, name=str(n))(dtype) for n in range(self.count)]
        return tuple(jnp.stack(matrices) for matrices in zip(*each, strict=True))


class MixtureOfExperts(nn.Module):
    """Gated MLPs, a few for each token, weighted by the probabilities that a router gives them."""

    architecture: Architecture
    layer: ExpertLayer

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, Routing]:
        """Maps [batch, seq, hidden] to the same shape, and says where tokens went."""
        a, count, few = self.architecture, self.layer.count, self.layer.chosen
        batch, hidden = x.shape[0], x.shape[-1]
        flat = x.reshape(-1, hidden)
        router = Weight(count, hidden, a.initializer_range, name="router")(x.dtype)
        logits = jax.lax.dot_general(flat, router, (((1,), (1,)), ((), ())))
        wide = jnp.promote_types(x.dtype, jnp.float32)
        probability = jax.nn.softmax(logits.astype(wide), axis=-1)
        weights, chosen = jax.lax.top_k(probability, few)
        if self.layer.normalised:
            weights = weights / jnp.sum(weights, axis=-1, keepdims=True)
        gate, up, down = Experts(a, count, name="experts")(x.dtype)
        order = in_blocks(chosen.reshape(-1), count)
        rows = jnp.where(order.filled[..., None], flat[order.row // few], 0)
        inner = ACTIVATIONS[a.hidden_act](grouped(rows, gate, order)) * grouped(rows, up, order)
        out = grouped(inner, down, order).reshape(-1, hidden)[order.place]
        out = out.reshape(-1, few, hidden) * weights.astype(x.dtype)[..., None]
        of_sequence = jnp.arange(batch)[:, None] * count + chosen.reshape(batch, -1)
        times = jnp.bincount(of_sequence.reshape(-1), length=batch * count)
        routing = Routing(
            times.reshape(batch, count).astype(wide),
            jnp.sum(probability.reshape(batch, -1, count), axis=1),
        )
        return jnp.sum(out, axis=1).reshape(x.shape), routing


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
    share, mean = (jnp.einsum("b,lbe->e", weights.astype(part.dtype), part) for part in routing)
    return count * jnp.sum(share * mean) / over**2
