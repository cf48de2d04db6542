"""The model of a recipe, and the state that its trainings start from."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from metatune.hypergrad import State
from metatune.models import LanguageModel, build, load_pretrained, locate, weights_sha256
from metatune.recipe import schema
from metatune.recipe.checks import one_origin_of_the_model
from metatune.recipe.faults import Fault, RecipeError


class Start(NamedTuple):
    """A model, and its parameters where it is pretrained.

    Attributes:
        model: the language model.
        params: what trainings start from; None for fresh parameters each time.
        weights_sha256: of the files that they come from; None for none.
    """

    model: LanguageModel
    params: Any | None
    weights_sha256: str | None


def start(wanted: schema.Model, vocab_size: int) -> Start:
    """Builds or loads the model of a recipe.

    Args:
        wanted: the recipe's choice.
        vocab_size: the tokenizer's.

    Raises:
        RecipeError: with all faults of the choice, of its config, or of its weights.
    """
    if faults := tuple(one_origin_of_the_model(wanted)):
        raise RecipeError("model", faults)
    options: dict[str, Any] = {
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


def context_faults(model: LanguageModel, data: schema.Data) -> Iterable[Fault]:
    """The model has a position for every token."""
    limit = model.config.max_position_embeddings
    if data.sequence_length > limit:
        problem = f"must be at most the model's context, {limit} tokens"
        cure = "lower it, or take a model whose config has a larger max_position_embeddings"
        yield Fault("data.sequence_length", data.sequence_length, problem, cure)


def initialiser(
    begin: Start, optimizer: optax.GradientTransformation
) -> Callable[[jax.Array], State]:
    """A compiled function from a key to the state that a training starts from."""
    if begin.params is None:

        @jax.jit
        def fresh(key: jax.Array) -> State:
            params = begin.model.init(key)
            return State(params, optimizer.init(params))

        return fresh

    @jax.jit
    def copied(params: Any) -> State:
        # Copies, because a training donates its state's buffers.
        return State(jax.tree.map(jnp.copy, params), optimizer.init(params))

    # An argument, because what a compiled program captures becomes a constant in it.
    return lambda key: copied(begin.params)
