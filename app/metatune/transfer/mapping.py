"""Which parameters of a proxy those of a target are like: by kind, and by relative depth."""

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

import numpy as np

from metatune.artefact import ArtefactError
from metatune.artefact.comparison import one_sided
from metatune.transfer.sizes import Side

LAYER: Final = re.compile(r"^(.*?\.)(\d+)(?=\.)")
"""What stands before the number of a block in a checkpoint name, and the number."""


class Between(NamedTuple):
    """Where in the proxy a parameter of the target lies.

    Attributes:
        lower: the parameter of the same kind in the block before, or its very counterpart.
        upper: that in the block after; `lower` again where it lies in one.
        along: the fraction of the way from `lower` to `upper`.
    """

    lower: str
    upper: str
    along: float


def depth_of(layer: int, depth: int, other: int) -> float:
    """The layer of a model of `other` blocks at the relative depth of a `layer` of `depth`.

    The first is at the first and the last at the last; a single one is at the middle.

    >>> [depth_of(layer, 4, 2) for layer in range(4)]
    [0.0, 0.3333333333333333, 0.6666666666666666, 1.0]
    """
    if depth == 1:
        return (other - 1) / 2
    return layer * (other - 1) / (depth - 1)


def counterparts(proxy: Side, target: Side) -> dict[str, Between]:
    """Where each of the target's parameters lies in the proxy, by checkpoint name.

    Between the nearest blocks that have it, where not all do.

    Raises:
        ArtefactError: a kind of parameter that only one side has, named by its first.
    """
    _refuse_other_kinds(proxy, target)
    layers = _layers(proxy)
    found = {}
    for name, parameter in target.parameters.items():
        if parameter.layer is None:
            found[name] = Between(name, name, 0.0)
            continue
        at = depth_of(parameter.layer, target.depth, proxy.depth)
        there = layers[_kind(name)]
        lower = max((layer for layer in there if layer <= at), default=there[0])
        upper = min((layer for layer in there if layer > at), default=lower)
        along = max(0.0, at - lower) / (upper - lower) if upper > lower else 0.0
        first, second = (renumbered(name, layer) for layer in (lower, upper))
        found[name] = Between(first, second if along else first, along)
    return found


def renumbered(name: str, layer: int) -> str:
    """The parameter of the same kind in another block.

    >>> renumbered("transformer.h.3.ln_1.bias", 0)
    'transformer.h.0.ln_1.bias'
    """
    return LAYER.sub(rf"\g<1>{layer}", name, count=1)


def renumbered_label(label: str, own: str, name: str) -> str:
    """The name of a group of the proxy for a parameter of the target.

    Where it names the block that `own` is in, it names that of `name`.

    >>> renumbered_label("model.layers.1.mlp", "model.layers.1.mlp.up.weight", "model.layers.3.mlp")
    'model.layers.3.mlp'
    >>> renumbered_label("mlp", "model.layers.1.mlp.up.weight", "model.layers.3.mlp.up.weight")
    'mlp'
    """
    here, there = LAYER.match(own), LAYER.match(name)
    if here is None or there is None:
        return label
    return re.sub(rf"^{re.escape(here[0])}(?=\.|$)", there[0], label)


def interpolated(at: Between, curves: Mapping[str, np.ndarray]) -> np.ndarray:
    """The curve of a parameter of the target: between those of the proxy, in log space.

    Exactly that of its counterpart where there is one.
    """
    lower, upper = curves[at.lower], curves[at.upper]
    if not at.along or np.array_equal(lower, upper):
        return lower
    # A power each, not logarithms: a rate of 0 stays 0.
    return lower ** (1 - at.along) * upper**at.along


def _refuse_other_kinds(proxy: Side, target: Side) -> None:
    ours, theirs = _kinds(proxy), _kinds(target)
    if ours.keys() == theirs.keys():
        return
    lines = one_sided("parameters", list(ours), list(theirs), target.source)
    said = "\n".join(f"  {line}" for line in lines)
    raise ArtefactError(target.source, [f"its parameters aren't those of the artefact\n{said}"])


def _kinds(side: Side) -> dict[str, str]:
    """The kinds of parameters, with the last name of each."""
    return {_kind(name): name for name in side.parameters}


def _kind(name: str) -> str:
    """A parameter's name with the block's number taken out."""
    return LAYER.sub(r"\g<1>N", name, count=1)


def _layers(side: Side) -> dict[str, list[int]]:
    """The blocks that have each kind of parameter: not all, where some have experts."""
    found: dict[str, list[int]] = {}
    for name, parameter in side.parameters.items():
        if parameter.layer is not None:
            found.setdefault(_kind(name), []).append(parameter.layer)
    return {kind: sorted(layers) for kind, layers in found.items()}
