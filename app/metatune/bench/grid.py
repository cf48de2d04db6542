"""The grid: what was asked for, read and checked, and a row for each of its points."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from metatune.bench import timing
from metatune.bench.memory import (
    CompiledProgram,
    ProgramMemory,
    compile_hypergradient,
    compile_plain_step,
)
from metatune.bench.memory import memory_of as measure
from metatune.bench.sizes import AXES, SIZES, Shape
from metatune.bench.variants import VARIANTS, Variant
from metatune.recipe.faults import Fault, RecipeError, unknown

Listener = Callable[[str], None]
SOURCE = "bench"
EXAMPLE = "write AXIS=VALUE,VALUE, e.g. layers=2,4,8"


@dataclass(frozen=True)
class Case:
    """A training whose hypergradient is measured.

    Attributes:
        size: the name of the model's size.
        shape: the size with what was varied.
    """

    size: str
    shape: Shape

    def __str__(self) -> str:
        """Such as `5.3M: 6 layers, 8 x 512 tokens, T = 2`."""
        s = self.shape
        return f"{self.size}: {s.layers} layers, {s.batch} x {s.sequence} tokens, T = {s.steps}"


@dataclass(frozen=True)
class BenchRow:
    """What one variant costs in one case.

    Attributes:
        case: the training.
        variant: how it is differentiated.
        memory: of one hypergradient.
        compile_seconds: of the program.
        plain_temp_bytes: what a plain step needs besides its arguments.
        seconds: of one hypergradient; None if it wasn't timed.
        plain_seconds: of one plain step; None if it wasn't timed.
        untimed: why it wasn't, where times were asked for.
        device_peak_bytes: most in use on the device since the process began, where it tells.
    """

    case: Case
    variant: Variant
    memory: ProgramMemory
    compile_seconds: float
    plain_temp_bytes: int
    seconds: float | None = None
    plain_seconds: float | None = None
    untimed: str | None = None
    device_peak_bytes: int | None = None

    @property
    def plain_steps(self) -> float | None:
        """Time in plain steps per inner step."""
        if self.seconds is None or self.plain_seconds is None:
            return None
        return self.seconds / self.case.shape.steps / self.plain_seconds


def cases(sizes: Sequence[str], vary: Sequence[str] = ()) -> list[Case]:
    """Every size with every combination of what is varied.

    Args:
        sizes: names of sizes.
        vary: `AXIS=VALUE,VALUE,...` each.

    Raises:
        RecipeError: with all faults of both.
    """
    faults = [unknown("--size", s, "size", s, list(SIZES)) for s in sizes if s not in SIZES]
    axes: dict[str, list[int]] = {}
    for text in vary:
        axis, values, wrong = _read_axis(text)
        if axis in axes:
            wrong.append(Fault("--vary", text, f"{axis} is varied twice", "give all values in one"))
        axes[axis] = values
        faults += wrong
    if faults:
        raise RecipeError(SOURCE, faults)
    found = (
        Case(size, SIZES[size]._replace(**dict(zip(axes, values, strict=True))))
        for size in sizes
        for values in product(*axes.values())
    )
    return list(dict.fromkeys(found))


def variants(names: Sequence[str]) -> list[Variant]:
    """Variants by their names.

    Raises:
        RecipeError: with a fault for each that is unknown.
    """
    allowed = list(VARIANTS)
    unheard = [name for name in names if name not in allowed]
    if faults := [unknown("--variant", name, "variant", name, allowed) for name in unheard]:
        raise RecipeError(SOURCE, faults)
    return [VARIANTS[name] for name in dict.fromkeys(names)]


def run(
    case: Case,
    compared: Sequence[Variant],
    *,
    rounds: int = 0,
    listener: Listener = lambda message: None,
) -> list[BenchRow]:
    """Measures the variants of one case.

    Args:
        case: the training.
        compared: the ways to differentiate it.
        rounds: how often each is timed; 0 for its memory alone, for which nothing is run.
        listener: is told what is being done.
    """
    unit = compile_plain_step(case.shape)
    programs: dict[str, CompiledProgram] = {}
    memory: dict[str, ProgramMemory] = {}
    for variant in compared:
        listener(f"{case}: compiling {variant.name}")
        programs[variant.name] = compile_hypergradient(case.shape, variant)
        memory[variant.name] = measure(case.shape, variant, programs[variant.name])
    fitting, untimed = programs, {}
    times: dict[str, float] = {}
    if rounds:
        untimed = dict(_too_large(memory))
        fitting = {name: programs[name] for name in programs if name not in untimed}
        listener(f"{case}: timing")
        times = timing.seconds(case.shape, unit, fitting, rounds)
    return [
        BenchRow(
            case,
            variant,
            memory[variant.name],
            programs[variant.name].compile_seconds,
            unit.temp_bytes,
            times.get(variant.name),
            times.get(timing.UNIT),
            untimed.get(variant.name),
            timing.device_peak_bytes(),
        )
        for variant in compared
    ]


def _too_large(memory: dict[str, ProgramMemory]) -> Iterator[tuple[str, str]]:
    """What doesn't fit, by name, and why."""
    free = timing.free_bytes()
    for name, needed in memory.items():
        total = needed.arguments + needed.temp
        if free is not None and total > free:
            yield name, f"needs {total} bytes, {free} are free"


def _read_axis(text: str) -> tuple[str, list[int], list[Fault]]:
    """An axis, its values, and what is wrong with them."""
    axis, equals, listed = text.partition("=")
    if not equals:
        return axis, [], [Fault("--vary", text, "not of the form AXIS=VALUE,VALUE", EXAMPLE)]
    faults = [] if axis in AXES else [unknown("--vary", text, "axis", axis, AXES)]
    values = [value.strip() for value in listed.split(",")]
    wrong = [value for value in values if not value.isdecimal() or int(value) < 1]
    faults += [
        Fault("--vary", text, f"{value!r} is not a whole number of 1 or above", EXAMPLE)
        for value in wrong
    ]
    return axis, [] if wrong else [int(value) for value in values], faults
