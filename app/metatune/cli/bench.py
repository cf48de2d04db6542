"""`metatune bench`: what a hypergradient costs."""

from pathlib import Path
from typing import Annotated

import typer

from metatune.cli.root import plain_errors


def benchmark(
    size: Annotated[
        list[str] | None, typer.Option(help="A size of model, 0.5M to 500M; repeat for more.")
    ] = None,
    vary: Annotated[
        list[str] | None,
        typer.Option(
            metavar="AXIS=VALUE,...",
            help="Values of layers, sequence, batch or steps; repeat for all combinations.",
        ),
    ] = None,
    variant: Annotated[
        list[str] | None,
        typer.Option(help="E.g. mixflow+remat+saved; repeat to compare with the first."),
    ] = None,
    time: Annotated[bool, typer.Option("--time", help="Run them too, for their time.")] = False,
    rounds: Annotated[int, typer.Option(min=1, help="Of --time; the least one counts.")] = 3,
    json: Annotated[Path | None, typer.Option(help="A file for all the numbers.")] = None,
    picture: Annotated[Path | None, typer.Option(help="An SVG file.")] = None,
) -> None:
    """Compare what a hypergradient costs, by how it is computed, in memory and time."""
    from rich.console import Console

    from metatune import bench
    from metatune.fit.process.allocation import keep_memory

    with plain_errors():
        keep_memory()
        bench.writable(json, picture)
        compared = bench.variants(variant or bench.DEFAULT)
        rows = []
        for case in bench.cases(size or ["5.3M"], vary or ()):
            rows += bench.run(case, compared, rounds=rounds * time, listener=typer.echo)
        Console().print(bench.tables(rows))
        bench.write(rows, json, picture)
