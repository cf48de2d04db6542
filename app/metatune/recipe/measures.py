"""What a recipe measures on held-out text: what it is, what it is the mean over, in which unit.

The only place that says so: whatever shows a held-out number asks here.
"""

from typing import Final

from metatune.recipe.phases import resolved
from metatune.recipe.schema import Average, Data, External, Measure, Outer

BYTES: Final = "bytes"
"""The tokenizer whose tokens are bytes, and the ends of documents."""


def measure(outer: Outer) -> Measure:
    """What the objective of a search is, of all its phases."""
    return getattr(resolved(outer)[0].estimator, "objective", "loss")


def average(outer: Outer) -> Average:
    """What a domain's held-out number is the mean over; of matches, which are of whole sequences.

    Args:
        outer: of a sound recipe.
    """
    return "sequences" if measure(outer) == "exact_match" else outer.objective.average


def token(data: Data, classes: tuple[str, ...] | None = None) -> str:
    """What a token is called: a byte, or a completion token.

    Args:
        data: the recipe's section.
        classes: of the tokens that count; None for all. Those of a part of a document are tokens
            whatever makes them: the end of the document is one of few.
    """
    if classes:
        return f"{' or '.join(classes)} token"
    return "byte" if data.tokenizer == BYTES else "token"


def unit(outer: Outer, data: Data) -> str:
    """The unit of held-out numbers, as it stands behind them.

    Args:
        outer: of a sound recipe.
        data: of the same.
    """
    if isinstance(resolved(outer)[0].estimator, External):
        return "of the command's loss"
    what, counted = measure(outer), token(data, outer.objective.classes)
    if what == "exact_match":
        return "of negative exact match over sequences"
    said = f"nats per {counted}" if what == "loss" else f"of negative accuracy over {counted}s"
    if average(outer) == "sequences":
        said += ", averaged over sequences"
    if outer.objective.worst_case is not None:
        said += ", smooth worst case of the target's domains"
    return said


def training_unit(data: Data) -> str:
    """The unit of the training loss: of all tokens that are trained on.

    Args:
        data: the recipe's section.
    """
    return f"nats per {token(data)}"


def sentence(outer: Outer, data: Data) -> str:
    """What the losses are that a user is about to see, each with what it is the mean over.

    Args:
        outer: of a sound recipe.
        data: of the same.
    """
    said = f"held-out numbers are {unit(outer, data)}"
    if isinstance(resolved(outer)[0].estimator, External):
        return said
    over = {
        "tokens": "the mean over the tokens that count, by domain",
        "sequences": "the mean over sequences, by domain",
    }
    return (
        f"{said}, {over[average(outer)]}, weighted by data.target; the inner loss is "
        f"{training_unit(data)}, the mean over a batch's tokens, with the weights and terms that "
        "the training has"
    )
