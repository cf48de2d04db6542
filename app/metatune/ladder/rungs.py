"""The rungs that a user asks for, and recipes that have none."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from metatune.recipe import file_errors
from metatune.recipe.bounds import read_json
from metatune.recipe.faults import Fault, RecipeError, unknown
from metatune.recipe.schema import Recipe
from metatune.transfer.rung import ALL, AXES, PROXY, Rung

PATH: Final = "--ladder"
DEFAULT: Final = ("all=2",)
LARGEST: Final = 64
"""Times the proxy along an axis, beyond which a ladder is a slip of the keyboard."""


def parse(words: Sequence[str]) -> tuple[Rung, ...]:
    """The rungs of `width=2,4 depth=2 all=2`, the proxy first, in the order of their compute.

    A word without `=` is the file of a model's config, whose rung is called after it, or, where it
    is called `config`, after its folder; these come last.

    Raises:
        RecipeError: naming each word that is none.
    """
    faults: list[Fault] = []
    rungs, configs = {PROXY}, dict[str, Rung]()
    for word in words:
        axis, equals, said = word.partition("=")
        if not equals:
            found = _of_config(Path(word))
            if isinstance(found, Rung) and found.name in (*configs, PROXY.name):
                problem = f"is called {found.name}, as another rung is"
                found = Fault(PATH, word, problem, "rename the file, or its folder")
            if isinstance(found, Fault):
                faults.append(found)
            else:
                configs[found.name] = found
            continue
        if axis not in (*AXES, ALL):
            faults.append(unknown(PATH, word, "axis", axis, (*AXES, ALL)))
            continue
        for factor in said.split(","):
            if not factor.isdecimal() or not 2 <= int(factor) <= LARGEST:
                problem = f"{factor!r} must be a whole number from 2 to {LARGEST}"
                faults.append(Fault(PATH, word, problem, f"write {axis}=2,4, say"))
                continue
            axes = AXES if axis == ALL else (axis,)
            rungs.add(replace(PROXY, **dict.fromkeys(axes, int(factor))))
    if faults:
        raise RecipeError("transfer", faults)
    ordered = sorted(rungs, key=lambda rung: (rung.compute, rung.name))
    return (*ordered, *configs.values())


def _of_config(path: Path) -> Rung | Fault:
    """The rung of a model's config, or why it is none."""
    try:
        config = read_json(path)
        if not isinstance(config, Mapping) or "model_type" not in config:
            raise ValueError("it has no model_type")
    except (OSError, ValueError) as error:
        why = file_errors.problem(error) if isinstance(error, OSError) else error
        problem = f"can't be read as a model's config: {why}"
        return Fault(PATH, str(path), problem, "give a config.json, or AXIS=FACTORS")
    name = path.absolute().parent.name if path.stem == "config" else path.stem
    return Rung(config=json.dumps(config, sort_keys=True), called=name)


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
