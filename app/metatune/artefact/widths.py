"""Carries learning rates to a model of another width, by the maximal update parametrisation (muP).

A rate follows how the fan-in and the fan-out of its parameter grow, r = target / tuned; what has
no width counts as 1: the vocabulary and the positions of embeddings, the tokens that a head tells
apart, the fan-in of norms and biases. Under Adam a rate is divided by r of the fan-in, so that
hidden matrices and the head shrink, and embeddings, norms and biases stay. Under SGD it is
multiplied by r of the fan-out and divided by r of the fan-in. Both are table 3 of the paper, which
asks for no factors in the forward pass; of tied embeddings table 8, with a factor for the logits.

Source: Yang et al., 2022, Tensor Programs V: Tuning Large Neural Networks via Zero-Shot
Hyperparameter Transfer, arXiv 2203.03466, tables 3 and 8.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from metatune.artefact.comparison import Shape, other_shapes, unmatched_parameters
from metatune.artefact.errors import ArtefactError
from metatune.artefact.format import Artefact
from metatune.artefact.sections.learning_rates import LearningRates, Multipliers
from metatune.recipe.faults import ABSENT, Fault, unknown

MUP: Final = "mup"
FITTED: Final = "fitted"
"""In the provenance of an artefact whose rates were carried to another model: what was done."""


class Fans(NamedTuple):
    """How many numbers go into each number of a parameter's product, and how many come out.

    Attributes:
        into: the fan-in; 1 where it doesn't grow with the width.
        out: the fan-out; 1 where it doesn't grow with the width.
    """

    into: int
    out: int


class Widths(NamedTuple):
    """A model, as far as its widths go.

    Attributes:
        source: what to call it.
        family: its `model_type`.
        parameters: the fans of each parameter, by checkpoint name.
        hidden: features between the blocks.
        tied: whether the embedding is the head too.
        head_size: numbers of an attention head.
    """

    source: str
    family: str
    parameters: Mapping[str, Fans]
    hidden: int
    tied: bool
    head_size: int


def _adam(into: float, out: float) -> float:
    return 1 / into


def _sgd(into: float, out: float) -> float:
    return out / into


RULES: Mapping[str, Callable[[float, float], float]] = {"adamw": _adam, "sgd": _sgd}
"""The factor of a rate from the growth of fan-in and fan-out, by kind of optimizer."""


def refuse_unmatched(artefact: Artefact, names: Mapping[str, object], source: str) -> None:
    """An export for a model has a rate for each of its parameters, and no others.

    Raises:
        ArtefactError: naming on both sides what only one of them has.
    """
    if lines := unmatched_parameters(artefact, list(names), source):
        said = "\n".join(f"  {line}" for line in lines)
        raise ArtefactError(source, [f"its parameters aren't those of the artefact\n{said}"])


def refuse_other_shapes(
    artefact: Artefact, ours: Mapping[str, Shape], theirs: Mapping[str, Shape], source: str
) -> None:
    """An export for a model holds rates that were tuned at its shapes.

    Args:
        artefact: of the tuned model.
        ours: shapes of the parameters of the tuned model.
        theirs: those of the model to come.
        source: what to call that.

    Raises:
        ArtefactError: naming the parameters, both shapes, and what to do.
    """
    if lines := other_shapes(ours, theirs, source):
        said = "\n".join(f"  {line}" for line in lines)
        carried = _carried(artefact)
        raise ArtefactError(
            source,
            [
                f"its parameters have other shapes than those that were tuned\n{said}\n"
                f"  tune on that model{carried}, or export without --against to take the rates "
                "as they are"
            ],
        )


def _carried(artefact: Artefact) -> str:
    """How rates can follow the widths, where a rule is there for them."""
    return (
        ", carry the rates to its widths (--widths mup)"
        if artefact.optimizer.settings["kind"] in RULES
        else ""
    )


def widened(artefact: Artefact, tuned: Widths, target: Widths, rule: str) -> Artefact:
    """The artefact for a model of other widths; its rates are fitted then, no longer tuned.

    Args:
        artefact: of the tuned model.
        tuned: the model that it was tuned on.
        target: the model to come.
        rule: `mup`.

    Raises:
        ArtefactError: an unknown rule; the models don't have the same parameters; or the rule says
            nothing of the optimizer, of adapters, of pretrained weights.
    """
    faults = [*_faults(artefact, tuned, target, rule)]
    if faults:
        raise ArtefactError("export", faults)
    refuse_unmatched(artefact, target.parameters, target.source)
    law = RULES[artefact.optimizer.settings["kind"]]
    factors = {}
    for name in artefact.learning_rates.parameters:
        ours, theirs = tuned.parameters[name], target.parameters[name]
        factors[name] = law(theirs.into / ours.into, theirs.out / ours.out)
    return dataclasses.replace(
        artefact,
        learning_rates=_scaled(artefact.learning_rates, factors),
        provenance={**artefact.provenance, FITTED: _said(artefact, tuned, target, factors)},
    )


def fitted_lines(artefact: Artefact) -> list[str]:
    """What was done to the rates of an artefact that was carried to another width, a line each."""
    return list(artefact.provenance.get(FITTED, {}).get("said", ()))


def _faults(artefact: Artefact, tuned: Widths, target: Widths, rule: str) -> list[Fault]:
    faults, kind = [], artefact.optimizer.settings["kind"]
    if rule != MUP:
        faults.append(unknown("--widths", rule, "rule", rule, (MUP,)))
    if tuned.family != target.family:
        problem = f"must be {tuned.family!r}, the family that was tuned"
        cure = "name a model of the same family, or tune on one"
        faults.append(Fault(f"{target.source}, model_type", target.family, problem, cure))
    if kind not in RULES:
        problem = f"muP has no rule for it here (only for {', '.join(RULES)})"
        faults.append(Fault("optimizer.kind", kind, problem, "export without --widths"))
    clip = artefact.optimizer.settings.get("clip_norm")
    if kind == "sgd" and clip is not None:
        problem = (
            "clipping makes the steps of SGD depend on the norm of all gradients, which grows with "
            "the width: its rates can't be carried over by muP"
        )
        faults.append(Fault("optimizer.clip_norm", clip, problem, "tune without clipping"))
    for key, what in (("lora", "adapters"), ("weights_sha256", "pretrained weights")):
        if key in artefact.provenance:
            problem = f"muP is about trainings from fresh parameters, and says nothing of {what}"
            faults.append(
                Fault(f"provenance.{key}", artefact.provenance[key], problem, "tune on the model")
            )
    if artefact.learning_rates.elements is not None:
        problem = "rates within parameters have the shapes of the tuned model"
        cure = "tune rates of whole tensors, or of groups of them"
        faults.append(Fault("learning_rates.elements", ABSENT, problem, cure))
    if artefact.initialisation is not None:
        problem = "the weights of a tuned start have the shapes of the tuned model"
        faults.append(Fault("initialisation", ABSENT, problem, "tune the start on the model"))
    if FITTED in artefact.provenance:
        problem = "the rates were carried to another width before"
        cure = "export from the run instead of from an export"
        faults.append(Fault(f"provenance.{FITTED}", "widths", problem, cure))
    return faults


def _scaled(rates: LearningRates, factors: Mapping[str, float]) -> LearningRates:
    """Rates times factors; the multipliers have them too, so that the base schedule stays."""
    multipliers = rates.multipliers
    if multipliers is None:
        every = tuple(rates.parameters)
        multipliers = Multipliers((0.0,), {"all": (1.0,)}, {"all": every})
    groups, members = {}, {}
    for group, curve in multipliers.groups.items():
        found: dict[float, list[str]] = {}
        for name in multipliers.members[group]:
            found.setdefault(factors[name], []).append(name)
        for factor, names in found.items():
            label = group if len(found) == 1 else f"{group}, width x{factor:.4g}"
            groups[label] = tuple(factor * value for value in curve)
            members[label] = tuple(names)
    return LearningRates(
        rates.knots,
        rates.interpolation,
        {name: factors[name] * curve for name, curve in rates.parameters.items()},
        Multipliers(multipliers.knots, groups, members),
    )


def _said(
    artefact: Artefact, tuned: Widths, target: Widths, factors: Mapping[str, float]
) -> dict[str, object]:
    """What a reader must know, and what the rule asks of the model to come."""
    counts: dict[float, int] = {}
    for factor in factors.values():
        counts[factor] = counts.get(factor, 0) + 1
    scaled = ", ".join(f"x{f:.4g} for {n} parameters" for f, n in sorted(counts.items()))
    said = [
        f"**fitted**, not tuned: the rates were carried to {target.source} by muP (Yang et al. "
        f"2022, Tensor Programs V, table {8 if target.tied else 3}): {scaled}",
        "muP holds where fresh weights are drawn so too, against those of the tuned model: a "
        "hidden matrix with a standard deviation smaller by the root of what its fan-in grew by"
        + ("" if target.tied else ", the head by all of it")
        + "; embeddings as before",
    ]
    if target.tied:
        said.append(
            "the embedding is the head too: multiply the logits by "
            f"{tuned.hidden / target.hidden:.4g}, or its rate is wrong for one of both"
        )
    if target.head_size != tuned.head_size:
        root = (tuned.head_size / target.head_size) ** 0.5
        said.append(f"attention heads grew: multiply the attention scores by {root:.4g}")
    if artefact.optimizer.settings.get("weight_decay"):
        said.append(
            "weight decay acts through the rates and was scaled with them: raise it by as much "
            "where the rate fell, to decay as before"
        )
    return {"rule": MUP, "to": target.source, "said": said}
