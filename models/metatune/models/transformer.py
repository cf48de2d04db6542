"""The transformer that every family is a row of: one block, scanned over the layers.

Where blocks with an MLP and blocks with experts take turns, stretches of one kind are scanned.

Its parameters carry the names of a Llama checkpoint; `families` holds what others call them. Tokens
are merged into one dimension around every projection: XLA on CPU contracts one dimension faster
than two in a weight's gradient.
"""

import itertools
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from metatune.models.architecture import ACTIVATIONS, DENSE, SPARSE, Architecture, Layer
from metatune.models.attention import attention
from metatune.models.chunking import rows_at_a_time
from metatune.models.experts import MixtureOfExperts, Routing
from metatune.models.layout import Layout
from metatune.models.modules import NORMS, Embedding, Head, Linear
from metatune.models.names import LAYERS
from metatune.models.packing import lengths, restart
from metatune.models.rope import by_document, query_factors, rotate, tables
from metatune.recipe.schema import Chunk

UNROLLED = 8
"""Blocks up to which a model without remat is one straight program: faster by a tenth, because
what each block leaves for the backward pass isn't copied into one array for all."""


class PerLayer(NamedTuple):
    """What the scan hands to each block, [layers] arrays; None where no layer has it.

    Attributes:
        rope: which of the model's rotary embeddings.
        window: tokens that a token attends to.
        scale: factor of the attention scores.
    """

    rope: jax.Array | None
    window: jax.Array | None
    scale: jax.Array


class SharedInputs(NamedTuple):
    """What all blocks see; None where the model or the batch has none.

    Attributes:
        cos: of the angles of each rotary embedding, [ropes, batch or 1, seq, features].
        sin: likewise.
        queries: factors of rotated queries, [ropes, batch or 1, seq].
        documents: of each token, [batch, seq].
    """

    cos: jax.Array | None
    sin: jax.Array | None
    queries: jax.Array | None
    documents: jax.Array | None


class Attention(nn.Module):
    """Causal self-attention with grouped queries (Ainslie et al., 2023)."""

    architecture: Architecture
    chunk: Chunk

    @nn.compact
    def __call__(self, x: jax.Array, layer: PerLayer, shared: SharedInputs) -> jax.Array:
        """Maps [batch, seq, hidden] to the same shape."""
        a = self.architecture
        batch, length, hidden = x.shape
        flat = x.reshape(-1, hidden)

        def project(name: str, heads: int) -> jax.Array:
            size = heads * a.head_dim
            return Linear(size, a.qkv_bias, a.initializer_range, a.transposed, name=name)(flat)

        def by_head(projected: jax.Array) -> jax.Array:
            return projected.reshape(batch, length, -1, a.head_dim)

        def norm(name: str, x: jax.Array) -> jax.Array:
            return NORMS[a.norm](a.norm_eps, name=name)(x)

        heads, shared_heads = a.num_attention_heads, a.num_key_value_heads
        if a.fused is None:
            q, k = project("q_proj", heads), project("k_proj", shared_heads)
            if a.qk_norm == "all":
                q, k = norm("q_norm", q), norm("k_norm", k)
            q, k, v = by_head(q), by_head(k), by_head(project("v_proj", shared_heads))
        else:
            mixed = project("qkv_proj", heads + 2 * shared_heads)
            if a.fused == "queries":
                ends = [heads * a.head_dim, (heads + shared_heads) * a.head_dim]
                q, k, v = (by_head(part) for part in jnp.split(mixed, ends, axis=-1))
            else:
                q, k, v = jnp.split(mixed.reshape(batch, length, -1, 3 * a.head_dim), 3, axis=-1)
        if a.qk_norm == "head":
            q, k = norm("q_norm", q), norm("k_norm", k)
        if layer.rope is not None and shared.cos is not None and shared.sin is not None:
            cos, sin = shared.cos[layer.rope], shared.sin[layer.rope]
            q, k = rotate(q, cos, sin), rotate(k, cos, sin)
            if shared.queries is not None:
                q = q * shared.queries[layer.rope].astype(q.dtype)[:, :, None, None]
        if a.qk_norm == "rotated":
            q, k = norm("q_norm", q), norm("k_norm", k)
        # Head-major; queries that share a key-value head lie side by side.
        q = q.reshape(batch, length, a.num_key_value_heads, -1, a.head_dim)
        q = q.transpose(0, 2, 3, 1, 4)
        k, v = k.transpose(0, 2, 1, 3), v.transpose(0, 2, 1, 3)
        sinks = None
        if a.sinks:
            normal = nn.initializers.normal(a.initializer_range)
            sinks = self.param("sinks", normal, (heads,), jnp.float32)
            sinks = sinks.reshape(shared_heads, -1)
        columns = batch * a.num_attention_heads * length
        out = attention(
            q,
            k,
            v,
            scale=layer.scale,
            softcap=a.attention_softcap,
            window=layer.window,
            documents=shared.documents,
            sinks=sinks,
            chunk=rows_at_a_time(self.chunk, rows=length, columns=columns),
        )
        out = out.transpose(0, 3, 1, 2, 4).reshape(batch * length, -1)
        stddev = a.attention_output_initializer_range
        out = Linear(hidden, a.output_bias, stddev, a.transposed, name="o_proj")(out)
        return out.reshape(x.shape)


class MLP(nn.Module):
    """Feed-forward layer: `down(act(up x))`, or gated `down(act(gate x) * up x)`.

    Source: Shazeer, GLU Variants Improve Transformer, 2020.
    """

    architecture: Architecture

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [batch, seq, hidden] to the same shape."""
        a = self.architecture
        activation = ACTIVATIONS[a.hidden_act]

        def project(name: str, features: int, stddev: float, x: jax.Array) -> jax.Array:
            return Linear(features, a.mlp_bias, stddev, a.transposed, name=name)(x)

        flat = x.reshape(-1, x.shape[-1])
        wide = a.intermediate_size
        if a.fused_mlp:
            both = project("gate_up_proj", 2 * wide, a.initializer_range, flat)
            gate, up = jnp.split(both, 2, axis=-1)
            inner = activation(gate) * up
        elif a.gated:
            gate = activation(project("gate_proj", wide, a.initializer_range, flat))
            inner = gate * project("up_proj", wide, a.initializer_range, flat)
        else:
            inner = activation(project("up_proj", wide, a.initializer_range, flat))
        out = project("down_proj", a.hidden_size, a.mlp_output_initializer_range, inner)
        return out.reshape(x.shape)


class Block(nn.Module):
    """Attention and MLP, with norms, around a residual stream."""

    architecture: Architecture
    attention_chunk: Chunk
    layout: Layout | None = None

    @nn.compact
    def __call__(
        self, x: jax.Array, layer: PerLayer, shared: SharedInputs
    ) -> tuple[jax.Array, Routing | None]:
        """Maps [batch, seq, hidden] to the same shape; a body for `nn.scan`.

        With experts it says where tokens went.
        """
        a = self.architecture

        def norm(name: str, x: jax.Array) -> jax.Array:
            return NORMS[a.norm](a.norm_eps, name=name)(x)

        attend = Attention(a, self.attention_chunk, name="self_attn")
        routing = None

        def mlp(x: jax.Array) -> jax.Array:
            nonlocal routing
            if a.experts is None:
                return MLP(a, name="mlp")(x)
            out, routing = MixtureOfExperts(a, a.experts, self.layout, name="mlp")(x)
            return out

        def added(to: jax.Array, branch: jax.Array) -> jax.Array:
            scale = a.residual_scale
            return to + (branch if scale is None else branch * jnp.asarray(scale, x.dtype))

        attended = attend(x if a.norms == "after" else norm("input_layernorm", x), layer, shared)
        if a.norms == "before":
            after = added(x, attended)
            before_mlp = x if a.parallel_residual else after
            return added(after, mlp(norm("post_attention_layernorm", before_mlp))), routing
        x = added(x, norm("post_attention_layernorm", attended))
        fed = mlp(x if a.norms == "after" else norm("pre_feedforward_layernorm", x))
        return added(x, norm("post_feedforward_layernorm", fed)), routing


class MixedBlocks(nn.Module):
    """Blocks of which some have experts and others an MLP, the parameters of a kind stacked."""

    architecture: Architecture
    remat: bool
    attention_chunk: Chunk
    layout: Layout | None

    @nn.compact
    def __call__(
        self, x: jax.Array, layers: PerLayer, shared: SharedInputs
    ) -> tuple[jax.Array, Routing]:
        """As a `Block`, one after the other, and what the routers of those with experts did."""
        a, count = self.architecture, len(self.architecture.layers)
        of_kind = {DENSE: replace(a, experts=None), SPARSE: a}

        def stack(kind: str, length: int, **options: Any) -> Any:
            unroll = 1 if self.remat or count > UNROLLED else length
            # Of a single block XLA unrolls the scan, and would merge what is computed twice.
            scan = _scanned(self.layout, self.remat, length, unroll, prevent_cse=length == 1)
            return scan(of_kind[kind], self.attention_chunk, self.layout, **options)

        if self.is_initializing():
            # Each kind's parameters once, in one stack; what they compute is of no interest.
            for kind, numbers in a.kinds.items():
                stack(kind, len(numbers), name=kind)(x, _taken(layers, np.array(numbers)), shared)
        routings, at = [], dict.fromkeys(a.kinds, 0)
        for dense, run in itertools.groupby(range(count), lambda number: number in a.dense):
            numbers, kind = list(run), DENSE if dense else SPARSE
            here = slice(at[kind], at[kind] + len(numbers))
            at[kind] = here.stop
            own = {"params": _taken(self.get_variable("params", kind), here)}
            among = _taken(layers, slice(numbers[0], numbers[-1] + 1))
            x, routing = stack(kind, len(numbers), parent=None).apply(own, x, among, shared)
            if routing is not None:
                routings.append(routing)
        return x, jax.tree.map(lambda *parts: jnp.concatenate(parts), *routings)


def _taken(tree: Any, layers: slice | np.ndarray) -> Any:
    """Some layers of a tree of arrays [layers, ...]."""
    return jax.tree.map(lambda leaf: leaf[layers], tree)


def _scanned(
    layout: Layout | None, remat: bool, length: int, unroll: int, prevent_cse: bool = False
) -> Any:
    """A block, scanned over so many layers."""
    block: Any = Block if layout is None else layout.gathering(Block)
    axes: Any = (0, nn.broadcast)  # flax accepts a tree of axes, its types say one integer
    return nn.scan(
        nn.remat(block, prevent_cse=prevent_cse) if remat else block,
        variable_axes={"params": 0},
        split_rngs={"params": True},
        in_axes=axes,
        length=length,
        unroll=unroll,
    )


class Body(nn.Module):
    """Embedding, blocks, final norm."""

    architecture: Architecture
    dtype: str
    remat: bool
    attention_chunk: Chunk
    layout: Layout | None = None

    @nn.compact
    def __call__(
        self, tokens: jax.Array, documents: jax.Array | None
    ) -> tuple[jax.Array, Routing | None]:
        """Maps [batch, seq] integers to [batch, seq, hidden], and to what routers did if any."""
        a, dtype = self.architecture, jnp.dtype(self.dtype)
        positions = jnp.arange(tokens.shape[1])[None]
        if documents is not None:
            positions, documents = restart(documents)
        stddev = a.initializer_range
        x = Embedding(a.vocab_size, a.hidden_size, stddev, name="embed_tokens")(tokens, dtype)
        if a.embedding_scale is not None:
            x = x * jnp.asarray(a.embedding_scale, dtype)
        if a.learned_positions:
            rows = a.max_position_embeddings
            at = Embedding(rows, a.hidden_size, stddev, name="embed_positions")
            x = x + at(positions, dtype)
        if a.embedding_norm:
            x = NORMS[a.norm](a.norm_eps, name="embed_norm")(x)
        layers, shared = _for_blocks(a, tokens.shape[1], positions, documents)
        if self.layout is not None:
            x = self.layout.cut(x)
        if a.kinds:
            options = (a, self.remat, self.attention_chunk, self.layout)
            blocks: Any = MixedBlocks(*options, name=LAYERS)
        else:
            count = len(a.layers)
            unroll = 1 if self.remat or count > UNROLLED else count
            scan = _scanned(self.layout, self.remat, count, unroll)
            blocks = scan(a, self.attention_chunk, self.layout, name=LAYERS)
        x, routing = blocks(x, layers, shared)
        return NORMS[a.norm](a.norm_eps, name="norm")(x), routing


class Transformer(nn.Module):
    """The language model: parameters below `model` and, if untied, `lm_head`."""

    architecture: Architecture
    dtype: str
    remat: bool
    attention_chunk: Chunk
    layout: Layout | None = None

    @nn.compact
    def __call__(
        self, tokens: jax.Array, documents: jax.Array | None = None
    ) -> tuple[jax.Array, Routing | None]:
        """Maps [batch, seq] integers to [batch, seq, hidden], after the final norm.

        With experts, also to what routers did in each layer.
        """
        a = self.architecture
        if not a.tie_word_embeddings:
            Head(a.vocab_size, a.initializer_range, name="lm_head")(a.hidden_size)
        options = (a, self.dtype, self.remat, self.attention_chunk, self.layout)
        return Body(*options, name="model")(tokens, documents)


def _for_blocks(
    architecture: Architecture, length: int, positions: jax.Array, documents: jax.Array | None
) -> tuple[PerLayer, SharedInputs]:
    """The inputs of the blocks besides the residual stream.

    Args:
        architecture: the model's.
        length: tokens per sequence.
        positions: of the tokens, [batch or 1, seq].
        documents: of the tokens, [batch, seq].
    """
    layers: tuple[Layer, ...] = architecture.layers
    kinds = list(dict.fromkeys(layer.rope for layer in layers))
    rope = cos = sin = queries = None
    if kinds != [None]:
        # A layer without rotary embedding is one whose angles are zero.
        like = next(kind for kind in kinds if kind is not None)
        size = architecture.head_dim
        cos, sin = (
            jnp.stack(table)[:, positions]
            for table in zip(*(tables(kind, like, size, length) for kind in kinds), strict=True)
        )
        for at, kind in enumerate(kinds):
            if documents is None or kind is None or not kind.follows_length:
                continue
            if length > kind.original_max_position_embeddings:
                found = by_document(kind, size, positions, lengths(positions), length)
                cos, sin = cos.at[at].set(found[0]), sin.at[at].set(found[1])
        if architecture.backwards:
            sin = -sin
        factors = np.stack([query_factors(kind, length) for kind in kinds])
        if (factors != 1).any():
            queries = jnp.asarray(factors)[:, positions]
        rope = jnp.array([kinds.index(layer.rope) for layer in layers])
    window = None
    if any(layer.window is not None for layer in layers):
        whole = np.iinfo(np.int32).max
        windows = [whole if layer.window is None else layer.window for layer in layers]
        window = jnp.array(windows, jnp.int32)
    scale = jnp.asarray(np.array([layer.scale for layer in layers]))
    return PerLayer(rope, window, scale), SharedInputs(cos, sin, queries, documents)
