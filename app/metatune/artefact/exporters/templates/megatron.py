"""The tuned rates of every parameter, as overrides for Megatron's optimizer.

from metatune_megatron import config_overrides

optimizer = get_megatron_optimizer(
    config, model_chunks, config_overrides=config_overrides(model_chunks)
)
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from megatron.core.optimizer.optimizer_config import (  # pyright: ignore[reportMissingImports]
    ParamKey,
    ParamPredicate,
)
from metatune_rates import (  # pyright: ignore[reportMissingImports]
    assigned,
    bare,
    groups,
    refuse_absent,
)

LAYER = re.compile(r"(?<=\blayers\.)\d+(?=\.)")


def config_overrides(
    model_chunks: Sequence[torch.nn.Module],
    names: Mapping[str, Sequence[str]] | None = None,
    *,
    fused: str = "mean",
) -> dict[ParamKey, dict[str, float]]:
    """Overrides of all parameters: `max_lr`, `min_lr` and `wd_mult`, by group.

    Names are those within the whole model: DDP and Float16Module put `module.` before them, and a
    stage of a pipeline counts its layers from 0.

    Args:
        model_chunks: as for `get_megatron_optimizer`.
        names: for a model whose names static_rates.json doesn't know, as for
            `metatune_rates.groups`.
        fused: what to do with queries, keys and values, and with gate and up projections, which
            are one parameter each: `mean` or `refuse`.

    Raises:
        ValueError: a parameter is in no group, or a name of a group matches no parameter of any
            process.
    """
    made = groups(names, fused=fused)
    whole: dict[str, Any] = {}
    for chunk in model_chunks:
        numbers = _layers(chunk)
        for name, parameter in chunk.named_parameters():
            here = LAYER.search(own := bare(name))
            if here:
                own = LAYER.sub(numbers[here[0]], own, count=1)
            whole[own] = parameter
    present: list[Any] = list(whole)
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        everyone: list[Any] = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(everyone, present)
        present = [name for own in everyone for name in own]
    refuse_absent(made, present)
    of = assigned(made, [name for name, p in whole.items() if p.requires_grad])
    overrides = {}
    for number, group in enumerate(made):
        own = frozenset(id(whole[name]) for name, its in of.items() if its is group)
        key = ParamKey(predicate=ParamPredicate(f"tuned_{number}", _is_one_of(own)))
        overrides[key] = {"max_lr": group.rate, "min_lr": group.last, "wd_mult": group.wd_mult}
    return overrides


def _is_one_of(parameters: frozenset[int]) -> Any:
    return lambda parameter: id(parameter) in parameters


def _layers(chunk: torch.nn.Module) -> dict[str, str]:
    """The number of each layer in the whole model, from 0, by that in this part of it."""
    found = {}
    for name, module in chunk.named_modules():
        own = re.search(r"\blayers\.(\d+)$", name)
        if own and hasattr(module, "layer_number"):
            found[own[1]] = str(int(module.layer_number) - 1)  # pyright: ignore[reportArgumentType]
    return found
