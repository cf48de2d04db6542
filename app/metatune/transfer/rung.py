"""A recipe at another size: so many times as wide, as deep, as long, or of another config."""

import hashlib
import json
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
        config: the text of a model's config.json that is trained in the place of the proxy's; then
            width and depth say nothing. None for the proxy's own, so many times as large.
        called: what the config is called.
    """

    width: int = 1
    depth: int = 1
    steps: int = 1
    config: str | None = None
    called: str = ""

    @property
    def name(self) -> str:
        """`proxy`, `width x2`, `all x4`, or all three apart; of a config what it is called."""
        if self.config is not None:
            return self.called
        factors = {axis: getattr(self, axis) for axis in AXES}
        changed = {axis: factor for axis, factor in factors.items() if factor != 1}
        if not changed:
            return "proxy"
        if len(changed) == len(AXES) and len(set(changed.values())) == 1:
            return f"{ALL} x{self.width}"
        return ", ".join(f"{axis} x{factor}" for axis, factor in changed.items())

    @property
    def key(self) -> str:
        """By what its losses are kept: its name, and of a config what stands in it."""
        if self.config is None:
            return self.name
        return f"{self.name} {hashlib.sha256(self.config.encode()).hexdigest()[:12]}"

    @property
    def compute(self) -> int:
        """Times the proxy's operations, but for embeddings: parameters grow with width squared."""
        return self.width**2 * self.depth * self.steps


PROXY: Final = Rung()


def recipe_at(recipe: Recipe, rung: Rung) -> Recipe:
    """The recipe at a rung: its model enlarged, its training lengthened, all else as it is."""
    config = dict(recipe.model.config or {})
    if rung.config is not None:
        config = json.loads(rung.config)
    elif (rung.width, rung.depth) != (1, 1):
        config = enlarged(config, width=rung.width, depth=rung.depth)
    return replace(
        recipe,
        model=replace(recipe.model, config=config),
        inner=replace(recipe.inner, steps=rung.steps * recipe.inner.steps),
    )
