"""Where along a training the objective of a recipe is taken."""

from metatune.recipe.schema import TrajectorySpec


def points(along: TrajectorySpec | None, steps: int) -> dict[int, float]:
    """After which inner steps of a stretch the objective is taken, and its weight there.

    The weights sum to one; in a stretch of fewer steps than points, those of one step are joined.
    """
    if along is None:
        return {steps: 1.0}
    parts = [k / along.points for k in range(1, along.points + 1)]
    weights = [part**along.exponent for part in parts]
    found: dict[int, float] = {}
    for k, weight in enumerate(weights, start=1):
        step = -(-steps * k // along.points)
        found[step] = found.get(step, 0.0) + weight / sum(weights)
    return found
