"""The rungs that a user asks for, and recipes that have none."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

from metatune.recipe.faults import Fault, RecipeError, unknown
from metatune.recipe.schema import Recipe
from metatune.transfer.rung import ALL, AXES, PROXY, Rung

DEFAULT: Final = ("all=2",)
LARGEST: Final = 64
"""Times the proxy along an axis, beyond which a ladder is a slip of the keyboard."""


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
