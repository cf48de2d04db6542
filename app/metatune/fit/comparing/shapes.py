"""The shapes of a model's parameters, from its config alone."""

from collections.abc import Mapping
from math import prod
from typing import Any, Final

from metatune.artefact import Artefact
from metatune.artefact.demands import destination
from metatune.models import Shape, build

NO_SHAPES: Final = "note: the artefact doesn't say what its model was: shapes aren't compared"


def shapes_of_artefact(artefact: Artefact) -> dict[str, Shape]:
    """Those of the model that was tuned, by checkpoint name, as far as the artefact says.

    Raises:
        RecipeError: its config can't be read.
    """
    config = artefact.provenance.get("model_config")
    if not config:
        return {}
    return shapes(config, artefact.provenance.get("vocab_size"), "the tuned model")


def sizes_of_parameters(artefact: Artefact) -> dict[str, int] | None:
    """Elements of each parameter of the model that an artefact is for, by checkpoint name.

    Returns:
        None where the artefact doesn't say them of every parameter that has a rate.

    Raises:
        RecipeError: the model's config can't be read.
    """
    to = destination(artefact)
    found = shapes_of_artefact(artefact)
    if to is not None:
        found = shapes(to.model_config, artefact.provenance.get("vocab_size"), to.source)
    names = artefact.learning_rates.parameters
    return {name: prod(found[name]) for name in names} if found.keys() >= names.keys() else None


def shapes(config: Mapping[str, Any], vocab_size: int | None, source: str) -> dict[str, Shape]:
    """Those of a config, by checkpoint name.

    Args:
        config: fields of a `config.json`.
        vocab_size: of the model, where the config leaves it to the tokenizer; None where that isn't
            known: parameters whose shapes depend on it are left out then.
        source: what faults call the config.

    Raises:
        RecipeError: with all faults of the config.
    """
    if vocab_size is not None or "vocab_size" in config:
        return build(config, vocab_size=vocab_size, path=source).shapes()
    first, second = (build(config, vocab_size=size, path=source).shapes() for size in (2, 3))
    return {name: shape for name, shape in first.items() if second[name] == shape}
