"""The rungs of a ladder: the recipe of a run at other sizes, from the proxy's own upwards."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from metatune.recipe.faults import Fault, RecipeError, unknown
from metatune.recipe.schema import Recipe
from metatune.transfer.enlarging import enlarged

AXES: Final = ("width", "depth", "steps")
ALL: Final = "all"
DEFAULT: Final = ("all=2",)
LARGEST: Final = 64
"""Times the proxy along an axis, beyond which a ladder is a slip of the keyboard."""


@dataclass(frozen=True)
class Rung:
    """A training, in the proxy's sizes.

    Attributes:
        width: times its features and heads.
        depth: times its blocks.
        steps: times its updates.
    """

    width: int = 1
    depth: int = 1
    steps: int = 1

    @property
    def name(self) -> str:
        """`proxy`, `width x2`, `all x4`, or all three apart."""
        factors = {axis: getattr(self, axis) for axis in AXES}
        changed = {axis: factor for axis, factor in factors.items() if factor != 1}
        if not changed:
            return "proxy"
        if len(changed) == len(AXES) and len(set(changed.values())) == 1:
            return f"{ALL} x{self.width}"
        return ", ".join(f"{axis} x{factor}" for axis, factor in changed.items())

    @property
    def compute(self) -> int:
        """Times the proxy's operations, but for embeddings: parameters grow with width squared."""
        return self.width**2 * self.depth * self.steps


PROXY: Final = Rung()


def parse(words: Sequence[str]) -> tuple[Rung, ...]:
    """The rungs of `width=2,4 depth=2 all=2`, the proxy first, in the order of their compute.

    Raises:
        RecipeError: naming each word that is none.
    """
    faults: list[Fault] = []
    rungs = {PROXY}
    for word in words:
        axis, _, said = word.partition("=")
        if axis not in (*AXES, ALL):
            faults.append(unknown("--ladder", word, "axis", axis, (*AXES, ALL)))
            continue
        for factor in said.split(","):
            if not factor.isdecimal() or not 2 <= int(factor) <= LARGEST:
                problem = f"{factor!r} must be a whole number from 2 to {LARGEST}"
                faults.append(Fault("--ladder", word, problem, f"write {axis}=2,4, say"))
                continue
            axes = AXES if axis == ALL else (axis,)
            sizes: dict[str, int] = dict.fromkeys(axes, int(factor))
            rungs.add(Rung(**sizes))
    if faults:
        raise RecipeError("transfer", faults)
    return tuple(sorted(rungs, key=lambda rung: (rung.compute, rung.name)))


def recipe_at(recipe: Recipe, rung: Rung) -> Recipe:
    """The recipe at a rung: its model enlarged, its training lengthened, all else as it is."""
    config = dict(recipe.model.config or {})
    if (rung.width, rung.depth) != (1, 1):
        config = enlarged(config, width=rung.width, depth=rung.depth)
    return replace(
        recipe,
        model=replace(recipe.model, config=config),
        inner=replace(recipe.inner, steps=rung.steps * recipe.inner.steps),
    )


def refuse_no_ladder(recipe: Recipe) -> None:
    """Refuses what has no other sizes.

    Raises:
        RecipeError: naming the fields, and what to do.
    """
    if faults := [*_faults(recipe)]:
        raise RecipeError("transfer", faults)


def _faults(recipe: Recipe) -> Iterator[Fault]:
    cure = "tune a model from scratch (model.config), and climb with that"
    if recipe.model.pretrained is not None:
        problem = "is a model of one size, that no rung can be made of"
        yield Fault("model.pretrained", recipe.model.pretrained, problem, cure)
    if recipe.inner.lora is not None:
        lora: Any = recipe.inner.lora
        yield Fault("inner.lora.rank", lora.rank, "is on top of weights of one size", cure)
    if recipe.trainer is not None:
        problem = "trains elsewhere, at sizes that can't be changed from here"
        yield Fault("trainer.command", recipe.trainer.command, problem, "measure it there")
