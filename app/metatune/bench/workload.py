"""The training that is differentiated: a Llama under Adam, rates and example weights as η."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from metatune.bench.sizes import Shape
from metatune.bench.variants import Variant
from metatune.hypergrad import Problem, State, hypergradient
from metatune.inner.losses import sequence_losses
from metatune.models import LanguageModel, ParameterNames, build

QUERIES, TOKENS = 64, 512
"""Of a chunk: queries whose scores, and tokens whose logits exist at a time."""
LEARNING_RATE = 1e-3
ADAM = optax.scale_by_adam(eps_root=1e-8)


def llama(shape: Shape, *, remat: bool, chunks: bool) -> LanguageModel:
    """The model of a shape."""
    config = {
        "model_type": "llama",
        "vocab_size": shape.vocab,
        "hidden_size": shape.width,
        "intermediate_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "max_position_embeddings": shape.sequence,
        "tie_word_embeddings": shape.tied,
    }
    return build(
        config,
        vocab_size=shape.vocab,
        remat=remat,
        attention_chunk=QUERIES if chunks else None,
        loss_chunk=TOKENS if chunks else None,
    )


def training(model: LanguageModel) -> Problem:
    """Adam on weighted examples; a log rate for each tensor and a log weight for each example."""

    def loss(params: Any, hyper: Any, tokens: jax.Array) -> jax.Array:
        return jnp.mean(hyper["weights"] * sequence_losses(model, params, tokens))

    def update(grads: Any, opt_state: Any, params: Any, hyper: Any) -> tuple[Any, Any]:
        directions, opt_state = ADAM.update(grads, opt_state)
        moved = jax.tree.map(lambda p, d, rate: p - rate * d, params, directions, hyper["rates"])
        return moved, opt_state

    def objective(params: Any, tokens: jax.Array) -> jax.Array:
        return jnp.mean(sequence_losses(model, params, tokens))

    def hyper_at(eta: Any, step: jax.Array) -> Any:
        del step
        return jax.tree.map(jnp.exp, eta)

    return Problem(loss, update, objective, hyper_at)


def initial(shape: Shape, key: jax.Array) -> tuple[Any, State, jax.Array, jax.Array]:
    """η, the state, made-up tokens of all inner steps, [steps, batch, seq + 1], and outer ones."""
    model = llama(shape, remat=False, chunks=False)
    params = model.init(key)

    def rates(param: jax.Array, names: ParameterNames) -> jax.Array:
        tensors = len(names.names) if names.stacked else 1
        return jnp.full((tensors,) + (1,) * (param.ndim - 1), jnp.log(LEARNING_RATE))

    eta = {"rates": jax.tree.map(rates, params, model.names()), "weights": jnp.zeros(shape.batch)}
    drawn = (shape.steps + 1, shape.batch, shape.sequence + 1)
    tokens = jax.random.randint(key, drawn, 0, shape.vocab, jnp.int32)
    return eta, State(params, ADAM.init(params)), tokens[:-1], tokens[-1]


def estimate(shape: Shape, variant: Variant) -> Callable[[Any, State, jax.Array, jax.Array], Any]:
    """One hypergradient as a function of what `initial` gives, to be compiled as one program."""
    problem = training(llama(shape, remat=variant.remat, chunks=variant.chunks))

    def estimate(eta: Any, state: State, tokens: jax.Array, outer: jax.Array) -> Any:
        result = hypergradient(
            problem,
            eta,
            state,
            lambda step: tokens[step],
            [outer],
            steps=shape.steps,
            estimator=variant.estimator(shape.steps),
        )
        return result.value, result.gradient

    return estimate


def plain_step(shape: Shape, *, remat: bool) -> Callable[[Any, State, jax.Array], State]:
    """A step of plain training: gradient and update of the same model."""
    problem = training(llama(shape, remat=remat, chunks=False))

    def step(eta: Any, state: State, tokens: jax.Array) -> State:
        hyper = problem.hyper_at(eta, jnp.int32(0))
        grads = jax.grad(problem.loss)(state.params, hyper, tokens)
        return State(*problem.update(grads, state.opt_state, state.params, hyper))

    return step
