"""The model of a recipe, and the state that its trainings start from."""

from collections.abc import Callable, Iterable
from typing import NamedTuple, TypedDict

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from metatune.hypergrad import State
from metatune.hypergrad.shapes import OptState, Params
from metatune.inner.seeds import key
from metatune.inner.trainable import Trainable
from metatune.models import LanguageModel, Layout, build, load_pretrained, locate, weights_sha256
from metatune.recipe import schema
from metatune.recipe.checks.model import one_origin_of_the_model
from metatune.recipe.faults import Fault, RecipeError
from metatune.tunables.shapes import Weights


class _Options(TypedDict):
    """How a model computes."""

    vocab_size: int
    dtype: str
    remat: bool
    attention_chunk: schema.Chunk
    loss_chunk: schema.Chunk


class Start(NamedTuple):
    """A model, and its parameters where it is pretrained.

    Attributes:
        model: the language model.
        params: what trainings start from; None for fresh parameters each time.
        weights_sha256: of the files that they come from; None for none.
    """

    model: LanguageModel
    params: Weights | None
    weights_sha256: str | None


def start(wanted: schema.ModelSpec, vocab_size: int) -> Start:
    """Builds or loads the model of a recipe.

    Args:
        wanted: the recipe's choice.
        vocab_size: the tokenizer's.

    Raises:
        RecipeError: with all faults of the choice, of its config, or of its weights.
    """
    if faults := tuple(one_origin_of_the_model(wanted)):
        raise RecipeError("model", faults)
    options: _Options = {
        "vocab_size": vocab_size,
        "dtype": wanted.dtype,
        "remat": wanted.remat,
        "attention_chunk": wanted.attention_chunk,
        "loss_chunk": wanted.loss_chunk,
    }
    if wanted.pretrained is None:
        return Start(build(wanted.config or {}, **options), None, None)
    folder = locate(wanted.pretrained, wanted.revision)
    model, params = load_pretrained(folder, **options)
    return Start(model, params, weights_sha256(folder))


def context_faults(model: LanguageModel, data: schema.DataSpec) -> Iterable[Fault]:
    """The model has a position for every token."""
    limit = model.config.max_position_embeddings
    if data.sequence_length > limit:
        problem = f"must be at most the model's context, {limit} tokens"
        cure = "lower it, or take a model whose config has a larger max_position_embeddings"
        yield Fault("data.sequence_length", data.sequence_length, problem, cure)


def balance_faults(model: LanguageModel, inner: schema.InnerSpec) -> Iterable[Fault]:
    """There are experts, where their use is to be even."""
    balance = inner.loss.router_balance if inner.loss else 0.0
    if balance and model.config.experts is None:
        problem = f"is of models with experts, and a {model.family} has none"
        yield Fault("inner.loss.router_balance", balance, problem, "take it out")


def initialiser(
    begin: Start,
    init: Callable[[Params], OptState],
    part: Trainable,
    layout: Layout | None = None,
) -> Callable[[Key[Array, ""]], State]:
    """A compiled function from a key to the state that a training of `part` starts from.

    Args:
        begin: the model, and what it starts from.
        init: parameters to the state of the optimizer.
        part: what is trained.
        layout: how the state lies on several devices; None for one.
    """

    def state(params: Weights, key: Key[Array, ""]) -> State:
        trained = part.trained(params, key)
        found = State(trained, init(trained))
        return found if layout is None else layout.kept(found, trained)

    if begin.params is None:
        return jax.jit(lambda key: state(begin.model.init(key), key))

    @jax.jit
    def copied(params: Weights, key: Key[Array, ""]) -> State:
        # Copies, because a training donates its state's buffers.
        return jax.tree.map(jnp.copy, state(params, key))

    # An argument, because what a compiled program captures becomes a constant in it.
    return lambda key: copied(begin.params, key)


def frozen(begin: Start, part: Trainable, seed: int, layout: Layout | None = None) -> Weights:
    """What no training of `part` moves: of a fresh model, as it is drawn once from `seed`."""
    if not part.freezes:
        return {}

    def kept(params: Weights) -> Weights:
        rest = part.frozen(params)
        return rest if layout is None else layout.kept(rest, rest)

    if begin.params is not None:
        return part.frozen(begin.params) if layout is None else jax.jit(kept)(begin.params)
    return jax.jit(lambda drawn: kept(begin.model.init(drawn)))(key(seed))
