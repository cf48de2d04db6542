"""What a recipe measures on held-out text: what it is, what it is the mean over, in which unit.

The only place that says so: whatever shows a held-out number asks here.
"""

from typing import Final

from metatune.recipe.schema import Average, DataSpec, OuterSpec, Recipe

BYTES: Final = "bytes"
"""The tokenizer whose tokens are bytes, and the ends of documents."""


def average(outer: OuterSpec) -> Average:
    """What a domain's held-out number is the mean over; matches are of whole sequences."""
    return "sequences" if outer.objective.measure == "exact_match" else outer.objective.average


def token(data: DataSpec, classes: tuple[str, ...] | None = None) -> str:
    """What a token is called: a byte, or a completion token.

    Args:
        data: the recipe's section.
        classes: of the tokens that count; None for all. Those of a part of a document are tokens
            whatever makes them: the end of the document is one of few.
    """
    if classes:
        return f"{' or '.join(classes)} token"
    return "byte" if data.tokenizer == BYTES else "token"


def unit(recipe: Recipe) -> str:
    """The unit of held-out numbers, as it stands behind them."""
    if recipe.trainer is not None:
        return "of the command's loss"
    outer, data = recipe.outer, recipe.data
    what, counted = outer.objective.measure, token(data, outer.objective.classes)
    if what == "exact_match":
        return "of negative exact match over sequences"
    said = f"nats per {counted}" if what == "loss" else f"of negative accuracy over {counted}s"
    if average(outer) == "sequences":
        said += ", averaged over sequences"
    if outer.objective.worst_case is not None:
        said += ", smooth worst case of the target's domains"
    return said


def training_unit(data: DataSpec) -> str:
    """The unit of the training loss: of all tokens that are trained on.

    Args:
        data: the recipe's section.
    """
    return f"nats per {token(data)}"


def sentence(recipe: Recipe) -> str:
    """What the losses are that a user is about to see, each with what it is the mean over."""
    said = f"held-out numbers are {unit(recipe)}"
    if recipe.trainer is not None:
        return said
    over = {
        "tokens": "the mean over the tokens that count, by domain",
        "sequences": "the mean over sequences, by domain",
    }
    return (
        f"{said}, {over[average(recipe.outer)]}, weighted by data.target; the inner loss is "
        f"{training_unit(recipe.data)}, the mean over a batch's tokens, with the weights and terms "
        "that the training has"
    )
