"""What a compiled program does on each device, read from its text: products, and what it moves.

XLA's own count takes a loop for one of its turns; here a loop counts as often as it is run, which
XLA writes beside it.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from functools import cache, reduce
from typing import Final, NamedTuple

INSTRUCTION: Final = re.compile(
    r"^\s*(?:ROOT )?%?(?P<name>[\w.-]+) = (?P<type>\(.*?\)|\S+) "
    r"(?P<kind>[\w-]+)\((?P<given>[^)]*)\)"
)
COMPUTATION: Final = re.compile(r"^(?P<entry>ENTRY )?%?(?P<name>[\w.-]+) \(.*\{$")
ARRAY: Final = re.compile(r"\b([a-z]+\d*)(?:\w*)\[([\d,]*)\]")
CALLED: Final = re.compile(r"(?:calls|to_apply|body)=%?([\w.-]+)")
BRANCHES: Final = re.compile(
    r"branch_computations=\{([^}]*)\}|(?:true|false)_computation=%?([\w.-]+)"
)
TURNS: Final = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
CONTRACTED: Final = re.compile(r"lhs_contracting_dims=\{([\d,]*)\}")
CALLS: Final = {"call", "fusion", "while", "async-start"}
COLLECTIVES: Final = {
    "all-gather": 1,
    "all-to-all": 1,
    "collective-permute": 1,
    "reduce-scatter": 1,
    "all-reduce": 2,
}
"""How often a ring moves the bytes of an array, at most."""


class Traffic(NamedTuple):
    """By collectives of a kind.

    Attributes:
        arrays: how many.
        bytes: that a device sends for them in a ring, at most.
    """

    arrays: int
    bytes: int


class ProgramWork(NamedTuple):
    """Of a program, on each device.

    Attributes:
        flops: of products of matrices, multiplications and additions.
        moved: by kinds of collectives.
    """

    flops: int
    moved: Mapping[str, Traffic]

    @property
    def moved_bytes(self) -> int:
        """By all collectives."""
        return sum(each.bytes for each in self.moved.values())


def work_in(text: str) -> ProgramWork:
    """Reads a compiled program.

    Args:
        text: of the optimized module, as `Compiled.as_text` gives it.

    Raises:
        ValueError: it is no such text.
    """
    computations, entry = _computations(text)

    @cache
    def of(name: str) -> Counter[tuple[str, str]]:
        lines = computations[name]
        types = {found["name"]: found["type"] for found in lines.values()}
        return sum(
            (_of_instruction(line, found, types, of) for line, found in lines.items()), Counter()
        )

    total = of(entry)
    kinds = sorted({kind for kind, what in total if what == "arrays"})
    moved = {kind: Traffic(total[kind, "arrays"], total[kind, "bytes"]) for kind in kinds}
    return ProgramWork(total["dot", "flops"], moved)


def _computations(text: str) -> tuple[dict[str, dict[str, re.Match[str]]], str]:
    """The instructions of each computation, by line; and the name of the one that is run."""
    found: dict[str, dict[str, re.Match[str]]] = {}
    inside, entry = "", ""
    for line in text.splitlines():
        if header := COMPUTATION.match(line):
            inside = header["name"]
            found[inside] = {}
            entry = inside if header["entry"] else entry
        elif inside and (instruction := INSTRUCTION.match(line)):
            found[inside][line] = instruction
    if not entry:
        raise ValueError("the text of a compiled program has an ENTRY; this has none")
    return found, entry


def _of_instruction(
    line: str,
    found: re.Match[str],
    types: Mapping[str, str],
    of: Callable[[str], Counter[tuple[str, str]]],
) -> Counter[tuple[str, str]]:
    """What an instruction comes to, with all that it calls."""
    kind = found["kind"]
    if kind == "dot":
        return Counter({("dot", "flops"): _flops(line, found, types)})
    if kind in COLLECTIVES:
        arrays = [_bytes(*array) for array in ARRAY.findall(found["type"])]
        moved = COLLECTIVES[kind] * sum(arrays)
        return Counter({(kind, "arrays"): len(arrays), (kind, "bytes"): moved})
    if kind == "conditional":
        names = [
            name.strip().lstrip("%")
            for several, one in BRANCHES.findall(line)
            for name in (several.split(",") if several else (one,))
        ]
        return reduce(lambda one, other: one | other, map(of, names), Counter())
    if kind not in CALLS:
        return Counter()
    turns = int(known[1]) if (known := TURNS.search(line)) else 1
    inner: Counter[tuple[str, str]] = Counter()
    for name in CALLED.findall(line):
        inner += Counter({key: turns * count for key, count in of(name).items()})
    return inner


def _flops(line: str, found: re.Match[str], types: Mapping[str, str]) -> int:
    left = re.findall(r"%([\w.-]+)", found["given"])[0]
    (_, of_left), (_, of_result) = ARRAY.findall(types[left])[0], ARRAY.findall(found["type"])[0]
    contracted = CONTRACTED.search(line)
    axes = _sizes(contracted[1]) if contracted else []
    return 2 * math.prod(_sizes(of_result)) * math.prod(_sizes(of_left)[axis] for axis in axes)


def _bytes(kind: str, dims: str) -> int:
    bits = re.search(r"\d+", kind)
    return math.prod(_sizes(dims)) * (max(8, int(bits[0])) // 8 if bits else 1)


def _sizes(dims: str) -> list[int]:
    return [int(size) for size in dims.split(",") if size]
