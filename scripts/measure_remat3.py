#!/usr/bin/env python3
"""What JAX's coming `jax.checkpoint` (the flag `jax_remat3`) makes of hypergradients.

Each way of `metatune bench` is compiled as one program without the flag and with it: XLA's bytes of
temporary arrays and its products, whether both give the same bits, and their times in turns.

usage: measure_remat3.py [--layers 2] [--rounds 5]
"""

import argparse
import statistics
import time
from typing import Any

import jax

from metatune.bench import Shape, Variant, workload

MIB = 2**20
WAYS = [
    Variant(mixed=mixed, remat=remat, chunks=False, saved=saved)
    for mixed in (True, False)
    for saved in (True, False)
    for remat in (False, True)
]


def compiled(shape: Shape, variant: Variant, given: Any, new: bool) -> Any:
    """The program of a hypergradient."""
    jax.config.update("jax_remat3", new)
    try:
        return jax.jit(workload.estimate(shape, variant)).lower(*given).compile()
    finally:
        jax.config.update("jax_remat3", False)


def bits(tree: Any) -> list[bytes]:
    """Of all arrays."""
    return [jax.device_get(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


def main() -> None:
    parser = argparse.ArgumentParser(usage=(__doc__ or "").split("usage: ")[1])
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    shape = Shape(512, 128, 384, options.layers, 4, 128, 2)
    given = workload.initial(shape, jax.random.key(0))
    print(f"jax {jax.__version__}, {shape}\n")
    print("| | temporary arrays, MiB | with the flag | | same bits | time with it |")
    print("|---|---|---|---|---|---|")
    for variant in WAYS:
        programs = [compiled(shape, variant, given, new) for new in (False, True)]
        old, new = (each.memory_analysis().temp_size_in_bytes for each in programs)
        same = bits(programs[0](*given)) == bits(programs[1](*given))
        ratios = []
        for _ in range(options.rounds):
            taken = []
            for program in programs:
                began = time.perf_counter()
                jax.block_until_ready(program(*given))
                taken.append(time.perf_counter() - began)
            ratios.append(taken[1] / taken[0])
        row = [variant.name, f"{old / MIB:.1f}", f"{new / MIB:.1f}", f"{new / old:.2f}"]
        row += ["yes" if same else "no", f"{statistics.median(ratios):.2f}"]
        print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
