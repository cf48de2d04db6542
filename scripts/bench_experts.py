"""A step of a model with experts beside one of a dense model of the same active parameters.

    python scripts/bench_experts.py --pairs 200
    python scripts/bench_experts.py --pairs 10 --hypergradient 8    # of so many steps, by MixFlow

Both are trained in one process, many short steps in turn, the first of a pair in turn: what else
the machine does meets both. Prints medians, the median of the ratios and their quartiles, of the
time by the clock and of processor time, which says more where other work takes the cores.
Intermediate features of the dense model are those of the experts that a token passes through.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from metatune.data import heldout_batches, stratified_batches
from metatune.fit.process.allocation import keep_memory
from metatune.hypergrad import MixFlow, hypergradient
from metatune.inner import prepare
from metatune.inner.losses import sequence_losses
from metatune.models import build
from metatune.recipe import schema

COMMON = {
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 264,
    "tie_word_embeddings": True,
}


def stepping(config: dict[str, Any], tokens: jax.Array) -> Callable[[], None]:
    """A function that trains by one step."""
    model = build(config)
    adam = optax.adamw(1e-3)
    params = model.init(jax.random.key(0))
    state = [params, adam.init(params)]

    @jax.jit
    def update(params: Any, opt_state: Any) -> tuple[Any, Any]:
        grads = jax.grad(lambda p: jnp.mean(sequence_losses(model, p, tokens)))(params)
        updates, opt_state = adam.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    def step() -> None:
        state[:] = jax.block_until_ready(update(*state))

    return step


def hypergradients(
    config: dict[str, Any], batch: int, length: int, steps: int
) -> Callable[[], None]:
    """A function that finds by MixFlow what the rates of such steps do to a held-out loss."""
    estimator = schema.MixFlowSpec(segment=steps)
    objective = schema.ObjectiveSpec(sequences=batch, micro_batch=batch)
    recipe = schema.Recipe(
        model=schema.ModelSpec(config={k: v for k, v in config.items() if k != "vocab_size"}),
        data=schema.DataSpec(
            domains={"code": schema.SourceSpec(shipped="code_stdlib")},
            target={"code": 1.0},
            sequence_length=length,
            batch_size=batch,
        ),
        inner=schema.InnerSpec(schema.AdamWSpec(learning_rate=1e-3), steps=steps),
        tune=schema.TuneSpec(learning_rates=schema.LearningRatesSpec(per="kind")),
        outer=schema.OuterSpec(steps=1, estimator=estimator, objective=objective),
    )
    training = prepare(recipe)
    eta, state = training.initial_eta(), training.initialise(jax.random.key(0))
    shares = training.trajectory(eta).mixture
    drawn = stratified_batches(training.corpus, seed=(0,), batch_size=batch, shares=shares)
    batches = [drawn(step) for step in range(steps)]
    held_out = heldout_batches(
        training.corpus, "validation", seed=(1,), sequences=batch, micro_batch=batch
    )

    def step() -> None:
        found = hypergradient(
            training.reweighted,
            eta,
            state,
            batches.__getitem__,
            held_out,
            steps=steps,
            estimator=MixFlow(steps),
        )
        jax.block_until_ready(found.gradient)

    return step


def main() -> None:
    """Measures."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (
        ("pairs", 200),
        ("hidden", 128),
        ("experts", 8),
        ("chosen", 2),
        ("wide", 128),
        ("batch", 16),
        ("length", 64),
        ("hypergradient", 0),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    a = parser.parse_args()
    keep_memory()
    common = {**COMMON, "hidden_size": a.hidden, "head_dim": a.hidden // 4}
    dense = {**common, "model_type": "qwen3", "intermediate_size": a.chosen * a.wide}
    experts = {
        **common,
        "model_type": "qwen3_moe",
        "intermediate_size": a.wide,
        "moe_intermediate_size": a.wide,
        "num_experts": a.experts,
        "num_experts_per_tok": a.chosen,
        "norm_topk_prob": True,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
    }
    tokens = jnp.asarray(np.random.default_rng(0).integers(256, size=(a.batch, a.length + 1)))
    if a.hypergradient:
        given = a.batch, a.length, a.hypergradient
        steps = [hypergradients(config, *given) for config in (experts, dense)]
    else:
        steps = [stepping(config, tokens) for config in (experts, dense)]
    for step in 3 * steps:
        step()
    taken = np.zeros((a.pairs, 2, 2))
    for pair in range(a.pairs):
        for which in (0, 1) if pair % 2 else (1, 0):
            start = time.perf_counter(), time.process_time()
            steps[which]()
            taken[pair, which] = time.perf_counter() - start[0], time.process_time() - start[1]
    for clock, name in enumerate(("by the clock", "of the processor")):
        found = taken[..., clock]
        experts_ms, dense_ms = 1e3 * np.median(found, axis=0)
        low, middle, high = np.quantile(found[:, 0] / found[:, 1], (0.25, 0.5, 0.75))
        print(
            f"{name}: experts {experts_ms:.2f} ms, dense {dense_ms:.2f} ms; "
            f"ratio {middle:.3f} ({low:.3f} to {high:.3f})"
        )


if __name__ == "__main__":
    main()
