"""A recipe at another size: so many times as wide, as deep, as long."""

from dataclasses import dataclass, replace
from typing import Final

from metatune.recipe.schema import Recipe
from metatune.transfer.enlarging import enlarged

AXES: Final = ("width", "depth", "steps")
ALL: Final = "all"


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
