"""Experts that a trainer's models hold in one tensor, where checkpoints name each.

Transformers 5 stacks those of a block: `experts.0.gate_proj.weight`, `experts.0.up_proj.weight`
and those of all other experts are `experts.gate_up_proj` in memory. Such a tensor has one learning
rate: that of all its experts where they have one, else their geometric mean.
"""

import re
from collections.abc import Collection, Iterator
from typing import Final

import numpy as np

from metatune.artefact.format import Artefact
from metatune.artefact.merging import together
from metatune.recipe.faults import ABSENT, Fault

EXPERT: Final = re.compile(r"(.*\.experts)\.\d+\.(gate|up|down)_proj\.weight")
IN_MEMORY: Final = {"gate": "{}.gate_up_proj", "up": "{}.gate_up_proj", "down": "{}.down_proj"}
"""As of `templates/torch_schedules.py`, which works without this module."""


def stacks(names: Collection[str]) -> dict[str, list[str]]:
    """The experts of each tensor of them, by its name in memory."""
    found: dict[str, list[str]] = {}
    for name in names:
        if expert := EXPERT.fullmatch(name):
            found.setdefault(IN_MEMORY[expert[2]].format(expert[1]), []).append(name)
    return found


def differing(artefact: Artefact) -> dict[str, list[str]]:
    """Of `stacks`, those whose experts have several curves of the learning rate."""
    curves = artefact.learning_rates.parameters
    return {
        tensor: names
        for tensor, names in stacks(curves).items()
        if any(not np.array_equal(curves[name], curves[names[0]]) for name in names)
    }


def faults(artefact: Artefact) -> Iterator[Fault]:
    """What no mean helps: weight decays, optimizers, or numbers within parameters, that differ."""
    optimizer = artefact.optimizer
    decayed, schedules = set(optimizer.decayed), optimizer.schedules
    decays = (schedules.weight_decay if schedules else None) or {}
    groups = optimizer.settings.get("groups", ())
    places = {name: place for place, own in enumerate(groups) for name in own["parameters"]}
    for tensor, names in stacks(artefact.learning_rates.parameters).items():
        if artefact.learning_rates.elements is not None:
            problem = f"transformers holds experts in one tensor, {tensor}: rates within each don't"
            cure = "choose optax or json, or tune experts by tensor"
            yield Fault("learning_rates.elements", ABSENT, f"{problem} fit", cure)
            return
        alike = {
            (name in decayed, tuple(np.asarray(decays.get(name, ())).tolist()), places.get(name))
            for name in names
        }
        if len(alike) > 1:
            problem = (
                f"transformers holds {len(names)} experts' matrices in one tensor, and their "
                "weight decays or optimizers differ"
            )
            cure = "choose optax or json, or tune these as one"
            yield Fault(f"optimizer of {tensor}", ABSENT, problem, cure)
            return
        muon = places and artefact.optimizer.kinds[places[names[0]]] == "muon"
        if muon and names[0] in groups[places[names[0]]]["orthogonal"]:
            problem = (
                f"transformers holds experts in one tensor, {tensor}, and torch.optim.Muon takes "
                "matrices alone"
            )
            cure = "choose optax, levanter or json, or tune experts by adamw, in a group before"
            yield Fault(f"optimizer.groups[{places[names[0]]}].kind", "muon", problem, cure)
            return


def as_one(artefact: Artefact) -> tuple[Artefact, str]:
    """The artefact with one curve for each tensor of experts, and how far that is off.

    Matrices of a tensor are of one size, so that their mean needs no weights.
    """
    several = differing(artefact)
    changed, off = together(artefact, list(several.values()))
    return changed, (
        f"fitted: {len(several)} tensors of experts have the geometric means of their experts' "
        f"rates: a rate is off by up to {100 * off:.3g} %"
    )
