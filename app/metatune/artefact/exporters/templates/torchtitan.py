"""The tuned rates of every parameter at every update, for torchtitan's configuration.

from metatune_torchtitan import TunedOptimizers, TunedSchedules

optimizer = TunedOptimizers.Config()
lr_scheduler = TunedSchedules.Config()
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from metatune_rates import (  # pyright: ignore[reportMissingImports]
    RATES,
    Group,
    assigned,
    bare,
    groups,
    rate_at,
    refuse_absent,
)
from torch.optim.lr_scheduler import LambdaLR
from torchtitan.components.optimizer.lr_scheduler import (  # pyright: ignore[reportMissingImports]
    LRSchedulersContainer,
)
from torchtitan.components.optimizer.optimizer import (  # pyright: ignore[reportMissingImports]
    OptimizersContainer,
)


class TunedOptimizers(OptimizersContainer):
    """AdamW with a group for each curve, whatever wraps the modules of the model."""

    @dataclass(kw_only=True, slots=True)
    class Config(OptimizersContainer.Config):
        """`names` and `fused` are those of `metatune_rates.groups`."""

        names: Mapping[str, Sequence[str]] | None = None
        fused: str = "mean"

    def __init__(self, config: Any, *, model_parts: Any):
        """Of all parts of the model that this process has.

        Raises:
            ValueError: a parameter is in no group, or a name of a group matches no parameter.
        """
        present: list[Any] = [name for part in model_parts for name, _ in part.named_parameters()]
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            everyone: list[Any] = [None] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(everyone, present)
            present = [name for own in everyone for name in own]
        made = groups(
            names_in(present) if config.names is None else config.names, fused=config.fused
        )
        refuse_absent(made, present)
        config.param_groups = self.tuned_groups = made  # what `_build_param_groups` is given
        super().__init__(config, model_parts=model_parts)

    @staticmethod
    def _build_param_groups(
        model: torch.nn.Module, param_group_configs: list[Group], impl_kwargs: dict[str, Any]
    ) -> tuple[dict[str, list[dict[str, Any]]], dict[str, list[str]]]:
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        of = assigned(param_group_configs, trained)
        built = []
        for group in param_group_configs:
            names = [name for name, own in of.items() if own is group]
            if names:  # a part of a pipeline has those of its layers
                params = [trained[name] for name in names]
                numbers = {"lr": group.rate, "weight_decay": group.weight_decay, **group.numbers}
                own = {"params": params, "param_names": [bare_name(name) for name in names]}
                built.append({**own, **impl_kwargs, **numbers, "tuned": group.names[0]})
        return {"AdamW": built}, {"AdamW": [group["tuned"] for group in built]}


class TunedSchedules(LRSchedulersContainer):
    """Every group on its own curve."""

    @dataclass(kw_only=True, slots=True)
    class Config(LRSchedulersContainer.Config):
        """Its fields have no effect."""

        def build(self, *, optimizers: Any, training_steps: int) -> "TunedSchedules":
            """The schedules over the updates of the training."""
            return TunedSchedules(optimizers, optimizers.tuned_groups, training_steps)

    def __init__(self, optimizers: Any, made: Sequence[Group], total_steps: int):
        """Of optimizers that `TunedOptimizers` made."""
        by_first = {group.names[0]: group for group in made}

        def factor(group: Group) -> Any:
            # The factor of an update that is past the last: a scheduler goes one beyond.
            last = total_steps - 1
            return lambda step: rate_at(group, min(step, last), total_steps) / group.rate

        self.schedulers = [
            LambdaLR(own, [factor(by_first[group["tuned"]]) for group in own.param_groups])
            for own in optimizers
        ]


def names_in(present: Collection[str]) -> dict[str, list[str]] | None:
    """The names of static_rates.json, of a model that fuses queries, keys and values or doesn't.

    Args:
        present: names of the parameters of all parts of the model.
    """
    known, there = json.loads(RATES.read_text(encoding="utf-8"))["names"], set(map(bare, present))
    if known is None:
        return None
    named: dict[str, list[str]] = {}
    for name, parts in known.items():
        if ".wqkv." in name and name not in there and name.replace("wqkv", "wq") in there:
            for x in "qkv":
                own = [part for part in parts if f".{x}_proj." in part]
                named[name.replace("wqkv", f"w{x}")] = own
        else:
            named[name] = parts
    return named


def bare_name(name: str) -> str:
    """The name that torchtitan saves a parameter under."""
    from torchtitan.components.checkpointer.utils import (  # pyright: ignore[reportMissingImports]
        canonical_fqn,
    )

    return canonical_fqn(name)
