"""What was measured as tables, one a case, as Markdown has them."""

from collections.abc import Iterator, Sequence
from itertools import groupby

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from metatune.bench.grid import BenchRow

MIB = 2**20
MEMORY = "memory in MiB by XLA's compile-time analysis of one hypergradient as one program"
LEGEND = (
    f"{MEMORY}: temp = carry (states and saved gradients between the sweeps) + parameters (other "
    "arrays of their size) + activations (what batch and sequence add)"
)
TIME = "time in plain steps per inner step; a plain step is gradient and update with block remat"


def tables(rows: Sequence[BenchRow]) -> RenderableType:
    """A table for each case, its variants compared with the first one.

    Returns:
        For `rich.console.Console.print`.
    """
    parts: list[RenderableType] = []
    for case, group in groupby(rows, lambda row: row.case):
        parts += [Text(f"\n{case}\n"), *_case(list(group))]
    lines = list(depth_law(rows)) + [LEGEND] + [TIME] * any(row.seconds for row in rows)
    return Group(*parts, *(Text(f"\n{line}", "dim") for line in lines))


def depth_law(rows: Sequence[BenchRow]) -> Iterator[str]:
    """What more layers add to activations beyond one block input for each, where they are varied.

    The law that block remat and mixed mode are to reach: next to nothing.

    Source: Kemaev et al., Scalable Meta-Learning via Mixed-Mode Differentiation, ICML 2025.
    """

    def alike(row: BenchRow) -> tuple[str, str]:
        return row.variant.name, f"{row.case.size} {row.case.shape._replace(layers=0)}"

    for (variant, _), group in groupby(sorted(rows, key=alike), alike):
        by_depth = sorted(group, key=lambda row: row.case.shape.layers)
        few, many = by_depth[0], by_depth[-1]
        grown = many.memory.activations - few.memory.activations
        inputs = many.memory.block_inputs - few.memory.block_inputs
        if inputs:
            yield (
                f"{few.case.size}, {variant}: {few.case.shape.layers} to {many.case.shape.layers} "
                f"layers add {_mib(grown)} MiB of activations, {_mib(inputs)} for one block input "
                f"each: {(grown - inputs) / few.memory.activations:+.0%} beyond"
            )


def _case(rows: list[BenchRow]) -> Iterator[RenderableType]:
    timed = any(row.plain_seconds for row in rows)
    table = Table(box=box.MARKDOWN, pad_edge=False)
    table.add_column("variant", no_wrap=True)
    heads = ["temp", "less", "carry", "parameters", "activations"]
    for head in heads + ["s", "plain steps"] * timed:
        table.add_column(head, justify="right", no_wrap=True)
    first = rows[0].memory.temp
    for row in rows:
        memory = row.memory
        cells = [_mib(memory.temp), f"{first / memory.temp:.1f}x"]
        cells += map(_mib, (memory.carry, memory.parameters, memory.activations))
        if timed and row.seconds is not None:
            cells += [f"{row.seconds:.3g}", f"{row.plain_steps:.2f}"]
        table.add_row(row.variant.name, *cells)
    yield table
    block_inputs, plain = rows[0].memory.block_inputs, rows[0].plain_temp_bytes
    about = f"one block input a layer: {_mib(block_inputs)} MiB; a plain step: {_mib(plain)} MiB"
    if (seconds := rows[0].plain_seconds) is not None:
        about += f", {seconds:.3g} s"
    yield Text(about, "dim")
    for row in rows:
        if row.untimed is not None:
            yield Text(f"{row.variant.name} not timed: {row.untimed}", "dim")


def _mib(count: int) -> str:
    return f"{count / MIB:,.0f}"
