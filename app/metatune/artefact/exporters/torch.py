"""Exports to PyTorch: a module that builds parameter groups, the optimizer and its scheduler."""

from collections.abc import Iterator

from metatune.artefact.capabilities import EVERYTHING
from metatune.artefact.exporters.base import MODULE, Exporter, export_files
from metatune.artefact.format import Artefact
from metatune.recipe.faults import ABSENT, Fault

SIDE_BY_SIDE = ("adamw", "sgd", "muon")
"""Whose optimizers PyTorch has, for the groups of several."""


def muon_faults(artefact: Artefact) -> Iterator[Fault]:
    """What of several optimizers side by side PyTorch's can't do."""
    groups = artefact.optimizer.settings.get("groups", ())
    for place, group in enumerate(groups):
        if group.get("inputs_first"):
            problem = (
                "are [inputs, outputs] in checkpoints, and torch.optim.Muon scales a matrix by "
                "sqrt(rows / columns)"
            )
            cure = "choose json or optax, or tune with adamw for these"
            path = f"optimizer.groups[{place}].inputs_first"
            yield Fault(path, list(group["inputs_first"])[:1], problem, cure)
    rates = artefact.learning_rates
    if rates and rates.elements is not None and len(set(artefact.optimizer.kinds)) > 1:
        problem = (
            "rates within parameters are those of one AdamW or SGD there, not of several kinds"
        )
        yield Fault("learning_rates.elements", ABSENT, problem, "choose optax or json")


TORCH = Exporter(
    "torch",
    "a module of PyTorch parameter groups, the optimizer and its scheduler",
    EVERYTHING,
    lambda production: export_files(production, "torch", {MODULE: "torch_schedules.py"}),
    "2.13",
    side_by_side=SIDE_BY_SIDE,
    faults=muon_faults,
    stacks_experts="some",
)
