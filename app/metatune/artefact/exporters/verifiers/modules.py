"""Modules of PyTorch with tiny parameters under given names."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import torch


def tiny(names: Iterable[str], matrices: Collection[str] = ()) -> torch.nn.Module:
    """A module whose parameters have these names, of two elements each or [2, 2]."""
    root = torch.nn.Module()
    for name in names:
        *path, last = name.split(".")
        own = torch.eye(2) if name in matrices else torch.ones(2)
        at = root
        for part in path:
            if part not in at._modules:
                at.add_module(part, torch.nn.Module())
            at = at.get_submodule(part)
        at.register_parameter(last, torch.nn.Parameter(own))
    return root


def groups_of(model: torch.nn.Module, optimizer: Any) -> Mapping[str, dict[str, Any]]:
    """The group of each parameter in an optimizer, by name."""
    by_id = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    return {name: by_id[id(p)] for name, p in model.named_parameters()}


def give_gradients(model: torch.nn.Module) -> None:
    """A gradient of ones to each parameter."""
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
