"""Whether an artefact fits a training: what is refused, and what must be said."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import jax
import numpy as np

from metatune.artefact import (
    UNFINISHED,
    Artefact,
    ArtefactError,
    ClassWeights,
    Labels,
    Positions,
    Vocabulary,
)
from metatune.artefact.comparison import Counterpart, differences, one_sided
from metatune.artefact.demands import demands
from metatune.artefact.horizon import distance
from metatune.data import TokenClass
from metatune.inner import InnerTraining
from metatune.recipe.checks.learned_update import UNCORRECTED
from metatune.recipe.faults import Fault
from metatune.recipe.schema import InnerOptimizerSpec, LossSpec, number_name
from metatune.train.following import not_followed


def refuse_misfit(tuned: Artefact, training: InnerTraining, source: str) -> None:
    """Refuses an artefact of other parameters, domains or classes, or with further schedules.

    Args:
        tuned: the artefact.
        training: what it is to be used for.
        source: what the recipe is called.

    Raises:
        ArtefactError: listing what each side has and the other hasn't, with nearest names.
    """
    faults: list[Fault | str] = [
        Fault(path, "tuned", "metatune train can't follow it", "export it, or tune without it")
        for path in not_followed(tuned)
    ]
    optimizer = training.recipe.inner.optimizer
    why = UNCORRECTED.get(type(optimizer))
    if tuned.learned_update is not None and why is not None:
        problem = (
            f"the artefact's learned update corrects the steps of an optimizer, not of one {why}"
        )
        cure = f"take {tuned.optimizer.settings['kind']}, which it was tuned for"
        faults.append(Fault("inner.optimizer.kind", optimizer.kind, problem, cure))
    faults += _rater_faults(tuned, training)
    names = tuple(name for leaf in jax.tree.leaves(training.names) for name in leaf.names)
    # Rates by name serve other shapes, too.
    other = Counterpart(source, names, {}, None, tuple(training.corpus.names))
    lines = differences(tuned, {}, other)
    if isinstance(tuned.loss_weights, ClassWeights):
        lines += _classes(tuned.loss_weights, training, source)
    if lines:
        faults.append("\n  ".join([f"doesn't fit {source}, nothing is trained:", *lines]))
    if faults:
        raise ArtefactError("--with", faults)


def _classes(weights: ClassWeights, training: InnerTraining, source: str) -> list[str]:
    """How classes of tokens differ from those of the training, a line each."""
    if isinstance(weights.of, Positions):
        tuned, here = weights.of.sequence_length, training.corpus.sequence_length
        what = "positions in sequences of {} tokens"
    elif isinstance(weights.of, Vocabulary):
        tuned, here = len(weights.of.classes), training.corpus.tokenizer.vocab_size
        what = "tokens of a vocabulary of {}"
    elif isinstance(weights.of, Labels):
        found, corpus = (), training.corpus
        if corpus.labels:
            there = corpus.label_tokens().sum(axis=0) > 0
            found = tuple(n for n, some in zip(corpus.labels, there, strict=True) if some)
        return one_sided("labels of documents", weights.classes, found, source)
    else:
        there = training.corpus.class_tokens().sum(axis=0) > 0
        classes = tuple(each.name.lower() for each in TokenClass if there[each])
        return one_sided("classes of tokens", weights.classes, classes, source)
    if tuned == here:
        return []
    return [f"loss weights are of {what.format(tuned)}, {source} has {what.format(here)}"]


def _rater_faults(tuned: Artefact, training: InnerTraining) -> Iterator[Fault]:
    """A rater scores the tokens that it was tuned on, and whole batches."""
    if tuned.rater is None:
        return
    ours, micro_batch = training.corpus.tokenizer, training.recipe.inner.micro_batch
    theirs = tuned.provenance.get("tokenizer_sha256")
    if tuned.rater.settings["vocab_size"] != ours.vocab_size or theirs not in (None, ours.sha256):
        problem = "the rater was tuned on the tokens of another tokenizer"
        cure = "take that one, or export the artefact without the rater (--lossy)"
        yield Fault("data.tokenizer", training.recipe.data.tokenizer, problem, cure)
    if micro_batch is not None:
        problem = "the artefact has a rater, whose weights depend on all sequences of a batch"
        yield Fault("inner.micro_batch", micro_batch, problem, "take it out")


def _numbers(optimizer: InnerOptimizerSpec) -> dict[str, Any]:
    """The fields of an optimizer by name, of groups as `Optimizer.numbers` of an artefact."""
    found = asdict(optimizer)
    for place, group in enumerate(found.pop("groups", ())):
        found |= {number_name(place, key): value for key, value in group.items()}
    return found


def remarks(tuned: Artefact, training: InnerTraining) -> Iterator[str]:
    """What differs from the training that was tuned, a line each: it is trained all the same."""
    if tuned.result.get("status") == "unfinished":
        yield f"warning: {UNFINISHED}"
    recipe = training.recipe
    chosen = _numbers(recipe.inner.optimizer)
    asked = demands(tuned)
    for key, value in tuned.optimizer.numbers.items():
        if asked is not None and key in asked.settings:
            continue  # the rule's number is used
        if chosen.get(key) != value:
            yield (
                f"warning: the rates were tuned for an optimizer with {key} {value}; the recipe's "
                f"{chosen.get(key, 'optimizer has none')} is used"
            )
    terms = tuned.loss_terms
    for name, ours in (recipe.inner.loss or LossSpec()).coefficients().items():
        theirs = float(terms.values[name][0]) if terms and name in terms.values else 0.0
        if not (terms and name in terms.tuned) and np.float32(ours) != np.float32(theirs):
            yield (
                f"warning: the artefact was tuned with {name} {theirs:.4g} in the loss; the "
                f"recipe's {ours:.4g} is used"
            )
    decayed = set(training.decayed()) ^ set(tuned.optimizer.decayed)
    if decayed:
        yield (
            f"warning: of {len(decayed)} parameters, such as {min(decayed)}, weight decay applied "
            "in the tuned training or applies now, not both; the recipe's choice is used"
        )
    wanted = {
        "tokenizer": ("tokenizer_sha256", training.corpus.tokenizer.sha256),
        "model config": ("model_config", training.model.config_json()),
    }
    if asked is not None:
        del wanted["model config"]  # what it was carried to was said
    for what, (key, ours) in wanted.items():
        if key in tuned.provenance and tuned.provenance[key] != ours:
            yield f"warning: the artefact was tuned with another {what} than the recipe's"
    if tuned.rater is not None:
        length = tuned.rater.settings["sequence_length"]
        if length != recipe.data.sequence_length:
            yield (
                f"warning: the rater was tuned on sequences of {length} tokens, not of "
                f"{recipe.data.sequence_length}"
            )
    tokens = recipe.data.batch_size * recipe.data.sequence_length
    if far := distance(tuned, recipe.inner.steps, tokens):
        yield f"warning: {far}"
