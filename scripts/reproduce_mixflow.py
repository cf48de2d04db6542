#!/usr/bin/env python3
"""Memory and time of one hypergradient: MixFlow against reverse-over-reverse, part by part.

The comparison of `metatune bench` on three models, and on the first with four times the layers: by
the paper's law, that adds one block input a layer to MixFlow's activations and little else. Needs
JAX, Flax and Optax alone.

usage: reproduce_mixflow.py [--sizes 5.3M 46.9M ...] [--vary AXIS=VALUE,... ...] [--variants V ...]
                            [--time] [--json FILE] [--picture FILE.svg]
"""

import argparse
import sys
from functools import partial
from pathlib import Path

from rich.console import Console

from metatune import bench
from metatune.fit.process.allocation import keep_memory
from metatune.recipe.faults import RecipeError

SIZES = ("5.3M", "46.9M", "71.3M")
DEEP = ("5.3M", "layers=6,24")
ROUNDS = 3
"""Of the times; the least one counts."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", nargs="+")
    parser.add_argument("--vary", nargs="+", default=[])
    parser.add_argument("--variants", nargs="+", default=bench.DEFAULT)
    parser.add_argument("--time", action="store_true", help="run them too")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--picture", type=Path)
    given = parser.parse_args()
    try:
        bench.writable(given.json, given.picture)
        compared = bench.variants(given.variants)
        chosen = bench.cases(given.sizes or SIZES, given.vary)
        if not given.sizes and not given.vary:
            chosen += bench.cases(DEEP[:1], DEEP[1:])
    except RecipeError as error:
        parser.error(str(error))
    keep_memory()
    rows = []
    for case in dict.fromkeys(chosen):
        rows += bench.run(
            case,
            compared,
            rounds=ROUNDS if given.time else 0,
            listener=partial(print, file=sys.stderr),
        )
    Console(width=100).print(bench.tables(rows))
    bench.write(rows, given.json, given.picture)


if __name__ == "__main__":
    main()
