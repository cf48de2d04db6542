"""Weights that are normalised by their sum."""

from collections.abc import Iterator, Mapping

from metatune.recipe.faults import Fault


def no_weighting(path: str, weights: Mapping[str, float]) -> Iterator[Fault]:
    """The faults of weights of which one is below zero, or none above it."""
    for name, weight in weights.items():
        if weight < 0:
            problem, cure = "must be 0 or above", "weights are normalised to sum to one"
            yield Fault(f"{path}.{name}", weight, problem, cure)
    if all(weight == 0 for weight in weights.values()):
        yield Fault(path, weights, "must have a weight above 0", "weigh at least one domain")
