"""Of tuned.yaml, by llm-foundry's groups and Composer's optimizer."""

from importlib import import_module
from pathlib import Path

import torch
import yaml

from metatune.artefact.exporters.verifiers.expected import Expected, agree
from metatune.artefact.exporters.verifiers.modules import groups_of, tiny

UPDATES = 3


def verify(expected: Expected, folder: Path) -> list[str]:
    """Peaks of the rates, betas, and what weight decay alone leaves of a parameter."""
    build_optimizer = import_module("llmfoundry.utils.builders").build_optimizer
    config = yaml.safe_load((folder / "tuned.yaml").read_text(encoding="utf-8"))
    # Its wrapper of models puts `model.` before their names.
    model, options = tiny(f"model.{name}" for name in expected.rates), dict(config["optimizer"])
    optimizer = build_optimizer(model, options.pop("name"), options)
    for name, group in groups_of(model, optimizer).items():
        own = name.removeprefix("model.") if name not in expected.peaks else name
        agree(f"peak of {own}", group["lr"], expected.peaks[own])
        wanted = [expected.optimizer["b1"], expected.optimizer["b2"]]
        agree(f"betas of {own}", list(group["betas"]), wanted)
    for _ in range(UPDATES):  # without gradients only weight decay moves a parameter
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
    for name, parameter in model.named_parameters():
        own = name.removeprefix("model.") if name not in expected.peaks else name
        left = (1 - expected.peaks[own] * expected.decay(own)) ** UPDATES
        agree(f"{own} after {UPDATES} updates of weight decay", float(parameter[0]), left, 1e-6)
    return [f"peaks of the rates, and weight decay, of {len(expected.rates)} parameters"]
