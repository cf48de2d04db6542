"""What a hypergradient of a language model costs: memory and time, by how it is computed.

Needs JAX, Flax and Optax alone, neither data nor tokenizers, so that it runs wherever a device is.
"""

from metatune.bench.grid import BenchRow, Case, cases, run, variants
from metatune.bench.memory import ProgramMemory
from metatune.bench.picture import cost_svg
from metatune.bench.record import document, writable, write
from metatune.bench.sizes import SIZES, Shape
from metatune.bench.table import tables
from metatune.bench.variants import DEFAULT, Variant

__all__ = [
    "DEFAULT",
    "SIZES",
    "Case",
    "ProgramMemory",
    "BenchRow",
    "Shape",
    "Variant",
    "cases",
    "cost_svg",
    "document",
    "run",
    "tables",
    "variants",
    "writable",
    "write",
]
