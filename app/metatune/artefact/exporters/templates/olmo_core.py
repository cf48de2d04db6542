"""The tuned rates of every parameter at every update, for OLMo-core's configuration.

from metatune_olmo_core import TunedAdamWConfig, TunedScheduler

optim = TunedAdamWConfig()
scheduler = TunedScheduler()
"""

from dataclasses import dataclass
from typing import Any

import torch
from metatune_rates import (  # pyright: ignore[reportMissingImports]
    assigned,
    groups,
    rate_at,
    refuse_absent,
)
from olmo_core.optim import AdamWConfig  # pyright: ignore[reportMissingImports]
from olmo_core.optim.scheduler import Scheduler  # pyright: ignore[reportMissingImports]

NAMES: dict[str, list[str]] | None = None
"""For a model whose names static_rates.json doesn't know, as for `metatune_rates.groups`."""

FUSED = "mean"
"""What to do with parameters fused into one whose rates differ, `refuse` or `mean`."""


@dataclass
class TunedAdamWConfig(AdamWConfig):
    """AdamW with a group for each curve, whatever wraps the modules of the model."""

    def build_groups(self, model: torch.nn.Module, strict: bool = True) -> list[dict[str, Any]]:
        """The groups of a model, or of a part of it where `strict` is false.

        Raises:
            ValueError: a parameter is in no group, or a name of a group matches no parameter.
        """
        made = groups(NAMES, fused=FUSED)
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        if strict:
            refuse_absent(made, [name for name, _ in model.named_parameters()])
        of = assigned(made, trained)
        return [
            {
                "params": [trained[name] for name, own in of.items() if own is group],
                "lr": group.rate,
                "weight_decay": group.weight_decay,
                "tuned": group.names[0],
                **group.numbers,
            }
            for group in made
            if any(own is group for own in of.values())
        ]


@dataclass
class TunedScheduler(Scheduler):
    """Every group on its own curve; counts updates as the Trainer does, from 1."""

    def get_lr(self, initial_lr: Any, current: int, t_max: int) -> Any:
        """Not asked for: a rate depends on the group."""
        raise NotImplementedError("TunedScheduler sets rates by group")

    def set_lr(self, group: dict[str, Any], trainer: Any) -> Any:
        """Sets the rate of a group of `TunedAdamWConfig` for the update that is being made."""
        if not hasattr(self, "_made"):
            self._made = {made.names[0]: made for made in groups(NAMES, fused=FUSED)}
        rate = rate_at(self._made[group["tuned"]], trainer.global_step - 1, trainer.max_steps)
        if isinstance(current := group["lr"], torch.Tensor):
            current.fill_(rate)
        else:
            group["lr"] = rate
        return rate
