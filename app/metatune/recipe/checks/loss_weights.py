"""Rules on loss weights."""

from collections.abc import Iterable
from typing import get_args

from metatune.recipe.faults import Fault, unknown
from metatune.recipe.schema import Class, DataSpec, LossWeightsSpec


def buckets_are_of_positions_or_frequencies(tune_loss_weights: LossWeightsSpec) -> Iterable[Fault]:
    """Domains and parts of documents are as many as there are."""
    weights = tune_loss_weights
    if weights.buckets is None or weights.per in ("position", "frequency"):
        return
    problem = f"has no effect on weights per {weights.per}"
    cure = "take it out, or weigh per position or frequency"
    yield Fault("tune.loss_weights.buckets", weights.buckets, problem, cure)


def weights_of_labels_have_labels(
    tune_loss_weights: LossWeightsSpec, data: DataSpec
) -> Iterable[Fault]:
    """Labels are a column of the data."""
    labelled = any(source.label for source in data.domains.values())
    if tune_loss_weights.per == "label" and not labelled:
        cure = "write label: NAME OF ITS COLUMN in each of data.domains"
        yield Fault("tune.loss_weights.per", "label", "no domain has a label", cure)


def initial_loss_weights_are_positive(
    tune_loss_weights: LossWeightsSpec, data: DataSpec
) -> Iterable[Fault]:
    """Weights are tuned by their logarithms; each belongs to something that there is."""
    weights = tune_loss_weights
    if weights.per == "domain":
        names = list(data.trained)
    elif weights.per == "class":
        names = list(get_args(Class))
    elif weights.per == "label":  # which the data says
        names = list(weights.initial or ())
    else:
        names = list(weights.bucket_names)
    for name, weight in (weights.initial or {}).items():
        path = f"tune.loss_weights.initial.{name}"
        if name not in names:
            yield unknown(path, weight, weights.per, name, names)
        if weight <= 0:
            problem = "must be above 0: weights are tuned by their logarithms"
            yield Fault(path, weight, problem, "take a small one for almost none, e.g. 0.01")
