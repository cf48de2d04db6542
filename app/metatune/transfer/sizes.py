"""What a rule is told of a training: the sizes of its model, and how long and how broadly it runs.

What isn't known is None; a rule that needs it says so by name.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

import jax

from metatune.models import LanguageModel, build, layer_numbers

Role = Literal["embedding", "head", "matrix", "vector", "query_key_norm", "router", "router_bias"]
"""What a parameter does to the features: `embedding` rows are picked, not multiplied; `head` makes
logits, and a `router` those of experts; a `matrix` has a fan-in; a `vector` is a norm's or a bias,
which acts on each feature by itself, and `query_key_norm` one that all attention heads share."""

QUERY_KEY_NORMS: Final = ("q_norm", "k_norm")
ROUTER: Final = "router"
SINKS: Final = "sinks"
WRITERS: Final = ("o_proj", "down_proj")
"""What writes to the residual stream, by our own names."""


@dataclass(frozen=True)
class Parameter:
    """A parameter, as far as rules go.

    Attributes:
        role: what it does.
        into: fan-in of a matrix, a head or a router: numbers that are summed into each of its
            outputs; 1 of all others, whose outputs sum nothing that grows with the width.
        out: fan-out, of a router the number of experts; 1 of a head, whose outputs are tokens.
        layer: of the blocks, from 0; None outside of them.
        writes: whether its block's branch ends with it: what it gives is added to the stream.
        queries: whether it makes queries and nothing else.
        std: standard deviation of its fresh numbers; None where all are alike, ones or zeros.
        bundled: whether it is of experts that a checkpoint has in one tensor, which optimizers of
            matrices leave to Adam.
    """

    role: Role
    into: int
    out: int
    layer: int | None = None
    writes: bool = False
    queries: bool = False
    std: float | None = None
    bundled: bool = False


@dataclass(frozen=True)
class Side:
    """One of the two trainings that a schedule is carried between.

    Attributes:
        source: what to call it.
        family: its `model_type`.
        parameters: by checkpoint name.
        depth: blocks.
        hidden: features between the blocks.
        heads: attention heads.
        head_dim: features of a head.
        vocabulary: rows of the embedding.
        tied: whether the embedding is the head too.
        norm: `rms`, `layer`, `centred_rms`, whose weights are offsets from one, or `plain_rms`,
            which has none.
        post_norms: whether each branch ends with a norm.
        query_key_norms: whether queries and keys have norms.
        embedding_scale: factor of the embeddings before the first block.
        experts: that a router chooses from in a block; 0 of MLPs.
        chosen: of them, by each token.
        sequence_length: tokens of a sequence.
        batch_size: sequences of an update.
        steps: updates of the whole training.
        tokenizer_sha256: hash of its vocabulary.
        optimizer: its kind; of several side by side that of each, in words.
        kinds: of several, that of each parameter by checkpoint name; empty of one.
        start: what it starts from where that isn't fresh numbers alone, in words.
        config: fields of the model's `config.json`.
    """

    source: str
    family: str
    parameters: Mapping[str, Parameter]
    depth: int
    hidden: int
    heads: int
    head_dim: int
    vocabulary: int | None
    tied: bool
    norm: str = "rms"
    post_norms: bool = False
    query_key_norms: bool = False
    embedding_scale: float = 1.0
    experts: int = 0
    chosen: int = 0
    sequence_length: int | None = None
    batch_size: int | None = None
    steps: int | None = None
    tokenizer_sha256: str | None = None
    optimizer: str | None = None
    kinds: Mapping[str, str] = field(default_factory=dict, repr=False)
    start: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def tokens(self) -> int | None:
        """That the whole training reads; None where a factor of it isn't known."""
        factors = (self.sequence_length, self.batch_size, self.steps)
        if any(factor is None for factor in factors):
            return None
        sequence, batch, steps = (factor for factor in factors if factor is not None)
        return sequence * batch * steps

    def like(self, other: "Side") -> bool:
        """Whether the parameters of both models are alike, their fresh numbers included.

        A vocabulary that isn't known is as that of the other.
        """
        fields = ("family", "parameters", "head_dim", "heads", "tied", "embedding_scale", "chosen")
        known = None not in (self.vocabulary, other.vocabulary)
        return all(getattr(self, name) == getattr(other, name) for name in fields) and not (
            known and self.vocabulary != other.vocabulary
        )


def of_config(source: str, config: Mapping[str, Any], **training: Any) -> Side:
    """The side of a model's config.

    Args:
        source: what to call it, in faults too.
        config: fields of a `config.json`; its vocabulary may be left to the tokenizer.
        training: what is known of the training, by fields of `Side`.

    Raises:
        RecipeError: with all faults of the config.
    """
    known = config.get("vocab_size", training.pop("vocabulary", None))
    # No fan is of the vocabulary: any number does where it isn't known.
    model = build(config, vocab_size=None if "vocab_size" in config else known or 2, path=source)
    return of_model(source, model, vocabulary=known, **training)


def of_model(source: str, model: LanguageModel, **training: Any) -> Side:
    """The side of a model; arguments as of `of_config`."""
    a = model.config
    return Side(
        source=source,
        family=model.family,
        parameters=parameters(model),
        depth=len(a.layers),
        hidden=a.hidden_size,
        heads=a.num_attention_heads,
        head_dim=a.head_dim,
        tied=a.tie_word_embeddings,
        norm=a.norm,
        post_norms=a.norms != "before",
        query_key_norms=a.qk_norm is not None,
        embedding_scale=1.0 if a.embedding_scale is None else a.embedding_scale,
        experts=a.experts.count if a.experts else 0,
        chosen=a.experts.chosen if a.experts else 0,
        config=model.config_json(),
        **{"vocabulary": a.vocab_size, **training},
    )


def parameters(model: LanguageModel) -> dict[str, Parameter]:
    """What each parameter is, by checkpoint name."""
    shapes = model.init_shapes()
    leaves, _ = jax.tree_util.tree_flatten_with_path(shapes)
    kinds = model.config.kinds
    names = jax.tree.leaves(model.names(), is_leaf=lambda leaf: hasattr(leaf, "stacked"))
    found: dict[str, Parameter] = {}
    for (path, shape), leaf in zip(leaves, names, strict=True):
        keys = tuple(entry.key for entry in path)
        own = shape.shape[leaf.lead :]
        if leaf.experts:
            keys = (*keys[:-1], keys[-1].removesuffix("_bias"), "weight")
        count = len(leaf.names)
        numbers = layer_numbers(keys, count, kinds) if leaf.stacked else (None,)
        for layer, name in zip(numbers, leaf.names, strict=True):
            one = _parameter(model, keys, own, layer, leaf.transposed)
            found[name] = replace(one, bundled=leaf.experts)
    return found


def _parameter(
    model: LanguageModel,
    keys: tuple[str, ...],
    shape: tuple[int, ...],
    layer: int | None,
    transposed: bool,
) -> Parameter:
    """A parameter by the path to it, of our own names."""
    a, module = model.config, keys[-2]
    writes = module in WRITERS
    if module == ROUTER:
        into, role = (shape[1], "router") if len(shape) == 2 else (1, "router_bias")
        return Parameter(role, into, shape[0], layer, std=a.initializer_range)
    if len(shape) == 1:
        std = a.initializer_range if keys[-1] == SINKS else None
        shared = module in QUERY_KEY_NORMS and a.qk_norm != "all"
        role: Role = "query_key_norm" if shared else "vector"
        return Parameter(role, 1, shape[0], layer, writes, module == "q_proj", std)
    if module == "lm_head":
        return Parameter("head", shape[1], 1, std=a.initializer_range)
    if layer is None:
        return Parameter("embedding", 1, shape[1], std=a.initializer_range)
    out, into = shape[:: -1 if transposed else 1]
    std = a.initializer_range
    if writes:
        attention, mlp = a.attention_output_initializer_range, a.mlp_output_initializer_range
        std = attention if module == WRITERS[0] else mlp
    return Parameter("matrix", into, out, layer, writes, module == "q_proj", std)
