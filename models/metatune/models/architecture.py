"""A decoder-only transformer as data: all that tells one family from another."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

import jax

from metatune.models.rope import Rope

_gelu_tanh = partial(jax.nn.gelu, approximate=True)


def _relu2(x: jax.Array) -> jax.Array:
    """The square of what is above zero (So et al., Primer, 2021)."""
    return jax.nn.relu(x) ** 2


ACTIVATIONS: Mapping[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": partial(jax.nn.gelu, approximate=False),
    "gelu_new": _gelu_tanh,
    "gelu_pytorch_tanh": _gelu_tanh,
    "relu": jax.nn.relu,
    "relu2": _relu2,
    "silu": jax.nn.silu,
}
"""By transformers' names."""


@dataclass(frozen=True)
class Layer:
    """What may differ between the blocks of one model.

    Attributes:
        rope: the rotary embedding; None for none.
        window: tokens that a token attends to, itself included; None for all up to itself.
        scale: factor of the attention scores.
    """

    rope: Rope | None
    window: int | None
    scale: float


@dataclass(frozen=True)
class ClampedGate:
    """gpt-oss's gate, of g and u that an expert begins with: `(u + 1) g σ(α g)`, both clamped.

    Attributes:
        alpha: α, the gain of the sigmoid.
        limit: above which g, and above and below which u are cut off.
    """

    alpha: float
    limit: float


@dataclass(frozen=True)
class ExpertLayer:
    """The experts of a block, each an MLP.

    Attributes:
        intermediate_size: features within one of them.
        count: how many there are.
        chosen: how many of them a token passes through.
        normalised: whether the weights of those sum to one.
        clamped: the gate of experts with biases, and a router with one, whose checkpoints hold
            those of a block in one: matrices [in, out], g and u in turns. None for the activation,
            no biases, and matrices by expert.
    """

    intermediate_size: int
    count: int
    chosen: int
    normalised: bool
    clamped: ClampedGate | None = None


DENSE, SPARSE = "dense", "sparse"
"""Blocks with an MLP, and blocks with experts, where a model has both."""


@dataclass(frozen=True)
class Architecture:
    """Everything that changes logits or initialisation.

    Attributes:
        layers: one for each block.
        hidden_size: features of the residual stream.
        intermediate_size: features within an MLP.
        num_attention_heads: query heads.
        num_key_value_heads: key-value heads, each shared by as many query heads.
        head_dim: features of a head.
        vocab_size: rows of the embedding.
        max_position_embeddings: the longest sequence that the model is meant for.
        hidden_act: the MLP's activation, one of `ACTIVATIONS`.
        norm_eps: added to the mean square, or variance, in a norm.
        tie_word_embeddings: whether the embedding is the unembedding too.
        initializer_range: standard deviation of fresh matrices.
        attention_output_initializer_range: of attention's last, which write to the residual stream.
        mlp_output_initializer_range: likewise, of those of MLPs and experts.
        norm: `rms` (Zhang & Sennrich, 2019), `centred_rms`, whose weights are offsets from one
            (Gemma), `plain_rms`, which has none, or `layer` (Ba et al., 2016).
        gated: whether the MLP is gated (Shazeer, 2020).
        fused: None where queries, keys and values have matrices of their own; else how the outputs
            of their common one are ordered: first all `queries`, or all of the first of `heads`.
        fused_mlp: whether the two that an MLP begins with have a common one, first the gate.
        transposed: whether the matrices of blocks are [in, out] in checkpoints, not [out, in].
        qkv_bias: whether queries, keys and values have biases.
        output_bias: whether the last projection of attention has.
        mlp_bias: whether the projections of an MLP have.
        qk_norm: over what queries and keys are normalised before they are rotated: each `head` by
            itself, with weights that all share, or `all` heads together; or, once they are, each
            `rotated` head by itself. None for not.
        backwards: whether queries and keys are rotated by the negative of their position's angles.
        sinks: whether each head has a logit more, of no key, that its softmax is over as well.
        norms: where norms stand: `before` attention and MLP, `after` them, or `around` them.
        parallel_residual: whether attention and MLP read the same residual stream.
        experts: those in the place of each block's MLP; None for none.
        dense: the blocks that have an MLP all the same, by their numbers; not all of them.
        learned_positions: whether each position has an embedding (Radford et al., 2019).
        embedding_norm: whether embeddings are normalised before the first block.
        embedding_scale: factor of the token embeddings.
        residual_scale: factor of what attention and MLP add to the residual stream; None for one.
        logit_divisor: what logits are divided by; None for one.
        attention_softcap: c of `c tanh(score / c)`; None for none.
        logit_softcap: likewise for the logits.
    """

    layers: tuple[Layer, ...]
    hidden_size: int
    intermediate_size: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    max_position_embeddings: int
    hidden_act: str
    norm_eps: float
    tie_word_embeddings: bool
    initializer_range: float
    attention_output_initializer_range: float
    mlp_output_initializer_range: float
    norm: Literal["rms", "centred_rms", "plain_rms", "layer"] = "rms"
    gated: bool = True
    fused: Literal["queries", "heads"] | None = None
    fused_mlp: bool = False
    transposed: bool = False
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    qk_norm: Literal["head", "all", "rotated"] | None = None
    backwards: bool = False
    sinks: bool = False
    norms: Literal["before", "after", "around"] = "before"
    parallel_residual: bool = False
    experts: ExpertLayer | None = None
    dense: frozenset[int] = frozenset()
    learned_positions: bool = False
    embedding_norm: bool = False
    embedding_scale: float | None = None
    residual_scale: float | None = None
    logit_divisor: float | None = None
    attention_softcap: float | None = None
    logit_softcap: float | None = None

    @property
    def kinds(self) -> Mapping[str, tuple[int, ...]]:
        """The numbers of the blocks of each kind, `DENSE` and `SPARSE`; none where all are alike.

        Parameters of blocks of a kind are stacked by themselves, below the kind.
        """
        if not self.dense:
            return {}
        sparse = (number for number in range(len(self.layers)) if number not in self.dense)
        return {DENSE: tuple(sorted(self.dense)), SPARSE: tuple(sparse)}
