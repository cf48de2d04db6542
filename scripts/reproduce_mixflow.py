#!/usr/bin/env python3
"""Memory and time of one hypergradient: MixFlow against reverse-over-reverse, part by part.

Memory is what XLA's compile-time analysis says of the whole hypergradient as one program: `temp`
is all it needs besides its arguments. Of it, `carry` is what any exact reverse method keeps of the
inner steps (parameters and optimizer state of each, and saved gradients); the rest are activations.
Time, where asked for, is in plain training steps (gradient and update, block remat) per inner step.

The inner optimizer is Adam; tuned are a rate for each tensor and a weight for each example.

usage: reproduce_mixflow.py [--sizes 5.3M 46.9M ...] [--time] [--json FILE]
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from metatune.hypergrad import MixFlow, Problem, Reverse, State, hypergradient, train
from metatune.inner.losses import sequence_losses
from metatune.models import LanguageModel, build

MIB = 2**20
QUERIES, TOKENS = 64, 512
"""Of the chunked variants."""


class Size(NamedTuple):
    """A row of the table."""

    vocab: int
    width: int
    layers: int
    hidden: int
    batch: int
    sequence: int
    steps: int


SIZES = {
    "0.5M": Size(256, 96, 3, 256, 8, 128, 2),
    "5.3M": Size(1024, 256, 6, 704, 8, 512, 2),
    "5.3M, 24 layers": Size(1024, 256, 24, 704, 8, 512, 2),
    "46.9M": Size(8192, 512, 12, 1408, 4, 1024, 2),
    "71.3M": Size(32000, 512, 12, 1408, 8, 2048, 2),
    "124M": Size(50257, 768, 12, 3072, 64, 128, 16),
    "500M": Size(32000, 1024, 24, 4096, 4, 2048, 2),
}


def model_of(size: Size, remat: bool, chunked: bool) -> LanguageModel:
    config = {
        "model_type": "llama",
        "vocab_size": size.vocab,
        "hidden_size": size.width,
        "intermediate_size": size.hidden,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.width // 64 if size.width >= 128 else 4,
        "max_position_embeddings": size.sequence,
    }
    return build(
        config,
        vocab_size=size.vocab,
        remat=remat,
        attention_chunk=QUERIES if chunked else None,
        loss_chunk=TOKENS if chunked else None,
    )


def problem_of(model: LanguageModel) -> Problem:
    adam = optax.scale_by_adam(eps_root=1e-8)

    def loss(params: Any, hyper: Any, tokens: jax.Array) -> jax.Array:
        return jnp.mean(hyper["weights"] * sequence_losses(model, params, tokens))

    def update(grads: Any, opt_state: Any, params: Any, hyper: Any) -> tuple[Any, Any]:
        directions, opt_state = adam.update(grads, opt_state)
        step = lambda p, d, rate: p - rate * d  # noqa: E731
        return jax.tree.map(step, params, directions, hyper["rates"]), opt_state

    def objective(params: Any, tokens: jax.Array) -> jax.Array:
        return jnp.mean(sequence_losses(model, params, tokens))

    def hyper_at(eta: Any, step: jax.Array) -> Any:
        return {"rates": jax.tree.map(jnp.exp, eta["rates"]), "weights": jnp.exp(eta["weights"])}

    return Problem(loss, update, objective, hyper_at)


def arguments(size: Size, model: LanguageModel) -> tuple[Any, Any, Any, Any]:
    """η, the state, the batches of all steps and the outer batch, as shapes."""

    def initial(key: jax.Array) -> State:
        params = model.init(key)
        return State(params, optax.scale_by_adam(eps_root=1e-8).init(params))

    state = jax.eval_shape(initial, jax.random.key(0))
    rates = jax.tree.map(lambda p: jax.ShapeDtypeStruct((1,) * p.ndim, p.dtype), state.params)
    eta = {"rates": rates, "weights": jax.ShapeDtypeStruct((size.batch,), jnp.float32)}
    tokens = jax.ShapeDtypeStruct((size.steps, size.batch, size.sequence + 1), jnp.int32)
    return eta, state, tokens, jax.ShapeDtypeStruct(tokens.shape[1:], jnp.int32)


class Variant(NamedTuple):
    """How a hypergradient is computed.

    Attributes:
        remat: recompute each block.
        chunked: attention and loss a chunk at a time.
        mixflow: mixed mode; reverse-over-reverse otherwise.
        saved: keep the inner gradients.
    """

    remat: bool
    chunked: bool
    mixflow: bool
    saved: bool

    def estimator(self, steps: int) -> MixFlow | Reverse:
        # Reverse is given the whole horizon at once, as one would write it; MixFlow pulls back a
        # step at a time, so that no state is stacked that lies in the carry already.
        return MixFlow(1, save_gradients=self.saved) if self.mixflow else Reverse(steps)


VARIANTS = {
    "reverse, step remat": Variant(False, False, False, False),
    "reverse + block remat": Variant(True, False, False, False),
    "reverse + block remat + chunks": Variant(True, True, False, False),
    "mixflow": Variant(False, False, True, False),
    "mixflow + block remat": Variant(True, False, True, False),
    "mixflow + block remat + chunks": Variant(True, True, True, False),
    "mixflow + block remat + chunks + saved gradients": Variant(True, True, True, True),
}


def compiled(size: Size, variant: str) -> Any:
    """One hypergradient of a variant as one program, compiled."""
    how = VARIANTS[variant]
    model = model_of(size, how.remat, how.chunked)
    problem = problem_of(model)

    def estimate(eta: Any, state: State, tokens: jax.Array, outer: jax.Array) -> Any:
        result = hypergradient(
            problem,
            eta,
            state,
            lambda step: tokens[step],
            [outer],
            steps=size.steps,
            estimator=how.estimator(size.steps),
        )
        return result.value, result.gradient

    return jax.jit(estimate).lower(*arguments(size, model)).compile()


def carry_bytes(size: Size, variant: str) -> int:
    """What the inner steps leave for the backward sweep, whatever happens inside a step."""
    _, state, _, _ = arguments(size, model_of(size, True, False))
    parameters = sum(leaf.size * 4 for leaf in jax.tree.leaves(state.params))
    # The state before the first step is an argument, not temporary.
    return (3 * (size.steps - 1) + size.steps * VARIANTS[variant].saved) * parameters


def seconds(run: Any, given: Any, rounds: int = 3) -> float:
    jax.block_until_ready(run(*given))
    took = []
    for _ in range(rounds):
        began = time.perf_counter()
        jax.block_until_ready(run(*given))
        took.append(time.perf_counter() - began)
    return min(took)


def filled(shapes: Any) -> Any:
    """Arguments with numbers in them."""
    rng = np.random.default_rng(0)

    def fill(leaf: Any) -> Any:
        if leaf.dtype == jnp.int32:
            return jnp.asarray(rng.integers(0, 256, leaf.shape), jnp.int32)
        return jnp.asarray(0.02 * rng.normal(size=leaf.shape), leaf.dtype)

    eta, state, tokens, outer = jax.tree.map(fill, shapes)
    eta["rates"] = jax.tree.map(lambda leaf: jnp.full_like(leaf, -7.0), eta["rates"])
    moments = jax.tree.map(jnp.zeros_like, state.opt_state)
    return eta, State(state.params, moments), tokens, outer


def plain_seconds(size: Size) -> float:
    """Of one plain training step with block remat."""
    model = model_of(size, True, False)
    problem = problem_of(model)
    eta, state, tokens, _ = filled(arguments(size, model))

    def run() -> Any:
        return train(problem, eta, state, tokens.__getitem__, steps=size.steps, segment=size.steps)

    return seconds(run, ()) / size.steps


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", nargs="+", default=["5.3M"], choices=SIZES)
    parser.add_argument("--time", action="store_true", help="run them too")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    rows = []
    print("| size | variant | temp MiB | carry | activations | compile s | plain steps per step |")
    print("|---|---|---|---|---|---|---|")
    for name in given.sizes:
        size = SIZES[name]
        unit = plain_seconds(size) if given.time else None
        for variant in VARIANTS:
            began = time.perf_counter()
            program = compiled(size, variant)
            compile_seconds = time.perf_counter() - began
            temp = program.memory_analysis().temp_size_in_bytes
            carry = carry_bytes(size, variant)
            row = {
                "size": name,
                "variant": variant,
                "temp_bytes": temp,
                "carry_bytes": carry,
                "compile_seconds": compile_seconds,
            }
            cost = ""
            if unit is not None:
                took = seconds(program, filled(arguments(size, model_of(size, True, False))))
                row |= {"seconds": took, "plain_step_seconds": unit}
                cost = f"{took / size.steps / unit:.2f}"
            rows.append(row)
            print(
                f"| {name} | {variant} | {temp / MIB:,.0f} | {carry / MIB:,.0f} | "
                f"{(temp - carry) / MIB:,.0f} | {compile_seconds:.0f} | {cost} |",
                flush=True,
            )
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
