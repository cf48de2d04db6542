"""Reads the widths of models from their configs: what an artefact was tuned on, and what comes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from metatune.artefact import Artefact, ArtefactError
from metatune.artefact.widths import Fans, Widths, refuse_other_shapes, refuse_unmatched, widened
from metatune.fit.comparing.shapes import shapes, shapes_of_artefact
from metatune.models import LanguageModel, build, read_config
from metatune.recipe.faults import ABSENT, Fault

HEAD = ("lm_head", "weight")


def of_artefact(artefact: Artefact) -> Widths:
    """Those of the model that was tuned.

    Raises:
        ArtefactError: the artefact doesn't say what its model was.
    """
    config = artefact.provenance.get("model_config")
    if not config:
        problem = "isn't there, so that the widths of the tuned model can't be known"
        fault = Fault("provenance.model_config", ABSENT, problem, "export without --widths")
        raise ArtefactError("export", [fault])
    return _widths("the tuned model", config)


def of_folder(folder: Path) -> Widths:
    """Those of the config.json in a folder; there need be no weights.

    Raises:
        RecipeError: there is none, or it can't be read.
    """
    return _widths(str(folder), read_config(folder))


def _widths(source: str, config: Mapping[str, Any]) -> Widths:
    # The vocabulary has no part in it; a config that leaves it to the tokenizer has none.
    model = build(config, vocab_size=None if "vocab_size" in config else 2, path=source)
    return Widths(
        source,
        model.family,
        fans(model),
        model.config.hidden_size,
        model.config.tie_word_embeddings,
        model.config.head_dim,
    )


def fans(model: LanguageModel) -> dict[str, Fans]:
    """The fans of each parameter by checkpoint name; 1 for what doesn't grow with the width."""
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    leaves, _ = jax.tree_util.tree_flatten_with_path(shapes)
    names = jax.tree.leaves(model.names(), is_leaf=lambda leaf: hasattr(leaf, "stacked"))
    found = {}
    for (path, shape), leaf in zip(leaves, names, strict=True):
        own = shape.shape[1:] if leaf.stacked else shape.shape
        if len(own) == 1:
            each = Fans(1, own[0])
        elif tuple(entry.key for entry in path) == HEAD:
            each = Fans(own[1], 1)
        elif not leaf.stacked:
            each = Fans(1, own[1])
        else:
            outputs, inputs = own[:: -1 if model.config.transposed else 1]
            each = Fans(inputs, outputs)
        found |= dict.fromkeys(leaf.names, each)
    return found


def fitted(artefact: Artefact, against: Path | None, rule: str | None) -> Artefact:
    """An artefact for a model: as it is, if that has the same shapes, or fitted to its widths.

    Args:
        artefact: as it was tuned.
        against: the folder of the model to come, with a config.json; None for any model.
        rule: how rates follow the widths; None to leave them.

    Raises:
        ArtefactError: a rule without a model; parameters that only one side has; without a rule,
            shapes that differ; what the rule can't do.
        RecipeError: the folder has no config.json that can be read.
    """
    if against is None:
        if rule is None:
            return artefact
        cure = "add --against MODEL_DIR, a folder with its config.json"
        fault = Fault("--widths", rule, "needs the model that the rates are for", cure)
        raise ArtefactError("export", [fault])
    target = of_folder(against)
    if rule is not None:
        return widened(artefact, of_artefact(artefact), target, rule)
    refuse_unmatched(artefact, target.parameters, target.source)
    theirs = shapes(read_config(against), None, target.source)
    refuse_other_shapes(artefact, shapes_of_artefact(artefact), theirs, target.source)
    return artefact
