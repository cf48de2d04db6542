"""Rules on the model."""

from collections.abc import Iterable

from metatune.recipe.faults import Fault
from metatune.recipe.schema import ModelSpec


def one_origin_of_the_model(model: ModelSpec) -> Iterable[Fault]:
    """A model is built from a config, or loaded with its weights; the hub has revisions."""
    if (model.config is None) == (model.pretrained is None):
        cure = "write one of them" if model.config is None else "keep one of them"
        said = {"config": model.config, "pretrained": model.pretrained}
        problem = "must have exactly one of config and pretrained"
        yield Fault("model", {k: v for k, v in said.items() if v is not None}, problem, cure)
    if model.revision is not None and model.pretrained is None:
        problem, cure = "is of a pretrained model", "write model.pretrained, or take it out"
        yield Fault("model.revision", model.revision, problem, cure)
