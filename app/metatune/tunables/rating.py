"""The network that rates sequences, and the weights of a batch that follow from its scores."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import NamedTuple, cast, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int, Key, PyTree, Shaped

from metatune.hypergrad.shapes import Shapes
from metatune.recipe import schema
from metatune.recipe.faults import Fault, RecipeError

EXPANSION = 2
"""Width of the hidden layer of a block, in widths of the network."""

NetworkParams = PyTree[Float[Array | np.ndarray, "..."], "N"]
"""Parameters of a `Network`, nested dictionaries."""


class Network(nn.Module):
    """Scores of sequences: pairs of neighbouring tokens, blocks, their mean, a scalar.

    A place is a token that is predicted, with the one before it: so much of the order of tokens is
    seen by any kind. The last layer begins at zero, and so do all scores.

    Attributes:
        vocab_size: number of tokens.
        hidden_size: width.
        layers: blocks.
        heads: of the attention of each block; none for blocks that see one place at a time.
    """

    vocab_size: int
    hidden_size: int
    layers: int
    heads: int

    @nn.compact
    def __call__(
        self, tokens: Int[Array, "batch sequence"], counted: Float[Array, "batch sequence-1"]
    ) -> Float[Array, "batch"]:
        """Scores.

        Args:
            tokens: the sequences.
            counted: 1 for the places whose mean is taken, else 0.
        """
        normal = nn.initializers.normal(self.hidden_size**-0.5)
        shape = (self.vocab_size, self.hidden_size)
        own, before = (self.param(name, normal, shape, jnp.float32) for name in ("own", "before"))
        hidden = own[tokens[:, 1:]] + before[tokens[:, :-1]]
        for layer in range(self.layers):
            if self.heads:
                normed = nn.LayerNorm(name=f"attention_norm_{layer}")(hidden)
                hidden += self._attended(normed, counted, layer)
            normed = nn.LayerNorm(name=f"mlp_norm_{layer}")(hidden)
            wide = nn.gelu(nn.Dense(EXPANSION * self.hidden_size, name=f"up_{layer}")(normed))
            hidden += nn.Dense(self.hidden_size, name=f"down_{layer}")(wide)
        pooled = jnp.einsum("bsh,bs->bh", hidden, counted / counted.sum(axis=1, keepdims=True))
        # Without a bias, which all sequences would share.
        head = nn.Dense(1, use_bias=False, kernel_init=nn.initializers.zeros, name="head")
        return head(pooled)[:, 0]

    def _attended(
        self,
        hidden: Float[Array, "batch places hidden"],
        counted: Float[Array, "batch places"],
        layer: int,
    ) -> Float[Array, "batch places hidden"]:
        """Attention of all places to all that count."""
        parts = nn.Dense(3 * self.hidden_size, use_bias=False, name=f"query_key_value_{layer}")(
            hidden
        )
        size = self.hidden_size // self.heads
        parts = parts.reshape(*hidden.shape[:2], 3, self.heads, size)
        query, key, value = (parts[:, :, i] for i in range(3))
        scores = jnp.einsum("bqhd,bkhd->bhqk", query, key) * size**-0.5
        # Finite, so that second derivatives are.
        scores += jnp.where(counted > 0, 0.0, -1e9)[:, None, None, :]
        mixed = jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores, axis=-1), value)
        return nn.Dense(self.hidden_size, use_bias=False, name=f"attended_{layer}")(
            mixed.reshape(hidden.shape)
        )


@dataclass(frozen=True, eq=False)
class Rating:
    """How sequences are scored and weighed, but for the numbers of the network.

    Attributes:
        spec: the recipe's choice.
        vocab_size: number of tokens.
    """

    spec: schema.RaterSpec
    vocab_size: int

    @cached_property
    def network(self) -> Network:
        """The network."""
        heads = getattr(self.spec, "heads", 0)
        return Network(self.vocab_size, self.spec.hidden_size, self.spec.layers, heads)

    def init(self, key: Key[Array, ""]) -> NetworkParams:
        """Fresh parameters of the network."""
        drawn = self.network.init(key, jnp.zeros((1, 2), jnp.int32), jnp.ones((1, 1)))
        return dict(drawn["params"])

    def shapes(self) -> Shapes:
        """The parameters' shapes."""
        return jax.eval_shape(self.init, jax.random.key(0))

    def unravelled(self, flat: Float[Array, "numbers"]) -> NetworkParams:
        """The parameters from one array, as `ravel_pytree` puts them one after another."""
        zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), self.shapes())
        return ravel_pytree(zeros)[1](flat)

    def by_name(self, params: NetworkParams) -> dict[str, Float[np.ndarray, "..."]]:
        """The parameters by dotted names, as artefacts hold them."""
        flat = flatten_dict(params, sep=".")
        return {name: np.asarray(value) for name, value in flat.items()}

    def scores(
        self,
        params: NetworkParams,
        tokens: Int[Array | np.ndarray, "batch sequence"],
        mask: Shaped[Array | np.ndarray, "batch sequence-1"] | None = None,
    ) -> Float[Array, "batch"]:
        """The score of each sequence: the higher, the more it is worth learning.

        Args:
            params: of the network.
            tokens: of the sequences.
            mask: 1 for the tokens that are predicted and count, else 0; None where all are.
        """
        tokens = jnp.asarray(tokens)
        dtype = jax.tree.leaves(params)[0].dtype
        counted = jnp.ones(tokens[:, 1:].shape) if mask is None else jnp.asarray(mask)
        scores = self.network.apply({"params": params}, tokens, counted.astype(dtype))
        return jnp.asarray(scores)

    def weights(
        self,
        params: NetworkParams,
        tokens: Int[Array | np.ndarray, "batch sequence"],
        mask: Shaped[Array | np.ndarray, "batch sequence-1"] | None,
        drawn: Float[Array, "batch"],
    ) -> Float[Array, "batch"]:
        """Weights of the losses of a batch: `exp(s / T)` over its mean.

        With all of `drawn` one, that is `B softmax(s / T)`. The mean is weighed by `drawn`, so that
        the weights average one over what the mixture draws, whatever a batch holds of each domain.

        Args:
            params: of the network.
            tokens: of the sequences.
            mask: as for `scores`.
            drawn: how often each sequence stands for one that the mixture draws.
        """
        scores = self.scores(params, tokens, mask) / self.spec.temperature
        # The largest cancels out, and so do its derivatives.
        raised = jnp.exp(scores - jax.lax.stop_gradient(jnp.max(scores)))
        # Written so that equal scores give ones to the last bit.
        return raised * (jnp.mean(drawn) / jnp.mean(drawn * raised))


class Rated(NamedTuple):
    """A rater with its numbers.

    Attributes:
        rating: the network, and what its scores do.
        params: its parameters.
    """

    rating: Rating
    params: NetworkParams


def held(
    settings: Mapping[str, str | int | float], parameters: Mapping[str, Float[np.ndarray, "..."]]
) -> Rated:
    """A rater that was tuned, ready to score.

    Args:
        settings: the recipe's choice, and `vocab_size`; others aren't of interest.
        parameters: by dotted name.

    Raises:
        RecipeError: the parameters aren't those of such a network.
    """
    kind = {each.kind: each for each in get_args(schema.RaterSpec)}[settings["kind"]]
    spec = kind(**{field.name: settings[field.name] for field in fields(kind)})
    rating = Rating(spec, int(settings["vocab_size"]))
    shapes = cast(Mapping[str, jax.ShapeDtypeStruct], flatten_dict(rating.shapes(), sep="."))
    expected = {name: leaf.shape for name, leaf in shapes.items()}
    found = {name: value.shape for name, value in parameters.items()}
    if found != expected:
        raise RecipeError("rater", [Fault("rater.shapes", found, f"must be {expected}")])
    params = unflatten_dict({k: jnp.asarray(v) for k, v in parameters.items()}, sep=".")
    return Rated(rating, params)
