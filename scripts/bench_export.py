#!/usr/bin/env python3
"""How long each export takes for a model of 135 million parameters, a curve for each tensor.

The artefact has the tensors of SmolLM2-135M (272), a curve of its own for each, and a mixture; none
of the model is needed. Times are wall clock, the least of the rounds.

usage: bench_export.py [--steps N] [--windows W] [--rounds R] [TARGET ...]
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from metatune.artefact import (
    Artefact,
    LearningRates,
    LossWeights,
    Mixture,
    Multipliers,
    Optimizer,
    load,
    write,
)
from metatune.artefact.exporters import EXPORTERS, export

LAYERS = 30
MODULES = (
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
    "input_layernorm",
    "post_attention_layernorm",
)
NAMES = (
    "model.embed_tokens.weight",
    *(f"model.layers.{i}.{module}.weight" for i in range(LAYERS) for module in MODULES),
    "model.norm.weight",
)
DOMAINS = ("web", "code", "mathematics", "books")


def artefact(steps: int, windows: int) -> Artefact:
    """A curve a tensor: a cosine with warmup, times a multiplier in each window."""
    random = np.random.default_rng(0)
    t, warmup = np.arange(steps), max(1, steps // 20)
    cosine = 0.5 * (1 + np.cos(np.pi * (t - warmup) / (steps - warmup)))
    base = 3e-3 * np.where(t < warmup, (t + 1) / (warmup + 1), cosine)
    factors = {name: random.uniform(0.2, 5, windows) for name in NAMES}
    knots = tuple(window / windows for window in range(windows))
    return Artefact(
        horizon_steps=steps,
        horizon_tokens=steps * 2**19,
        learning_rates=LearningRates(
            tuple((t / steps).tolist()),
            "constant",
            {name: base * factor[t * windows // steps] for name, factor in factors.items()},
            Multipliers(
                knots,
                {name: tuple(factor.tolist()) for name, factor in factors.items()},
                {name: (name,) for name in NAMES},
            ),
        ),
        mixture=Mixture(knots, "constant", DOMAINS, random.dirichlet(np.ones(4), windows)),
        loss_weights=LossWeights((0.0,), "constant", DOMAINS, np.ones((1, 4))),
        optimizer=Optimizer(
            {
                "kind": "adamw",
                "weight_decay": 0.1,
                "b1": 0.9,
                "b2": 0.95,
                "eps": 1e-8,
                "eps_root": 1e-12,
                "clip_norm": 1.0,
            },
            NAMES[:-1],
        ),
        provenance={},
        result={},
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("targets", nargs="*", metavar="TARGET", default=list(EXPORTERS))
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--windows", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        run = Path(scratch) / "run"
        write(run, artefact(arguments.steps, arguments.windows), "")
        print(f"{len(NAMES)} tensors, {arguments.windows} windows, {arguments.steps} updates")
        print("seconds, loading included; bytes of the folder")
        for target in arguments.targets:
            times, paths = [], []
            for _ in range(arguments.rounds):
                start = time.perf_counter()
                paths = export(
                    load(run),
                    target,
                    Path(scratch) / target,
                    overwrite=True,
                    lossy=True,
                    sequences_per_step=2048,
                ).paths
                times.append(time.perf_counter() - start)
            size = sum(path.stat().st_size for path in paths)
            print(f"{target:<18}{min(times):6.2f}{size:12,}")


if __name__ == "__main__":
    main()
