"""Of metatune_olmo_core.py, by OLMo-core's own optimizer and scheduler."""

from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from metatune.artefact.exporters.verifiers import named
from metatune.artefact.exporters.verifiers.expected import Expected, agree
from metatune.artefact.exporters.verifiers.modules import give_gradients, tiny


def verify(expected: Expected, folder: Path) -> list[str]:
    """What is verified of the names, and the rates of every update."""
    lines = named.verify(expected, folder)
    exported, groups, names = named.made(expected)
    ours: Any = import_module("metatune_olmo_core")
    model = tiny(names)
    optimizer, scheduler = ours.TunedAdamWConfig().build(model), ours.TunedScheduler()
    by_first = {group.names[0]: group for group in groups}
    for step in range(expected.total):
        trainer = SimpleNamespace(global_step=step + 1, max_steps=expected.total)
        for group in optimizer.param_groups:
            rate = exported.rate_at(by_first[group["tuned"]], step, expected.total)
            agree(f"update {step}, {group['tuned']}", scheduler.set_lr(group, trainer), rate)
        give_gradients(model)
        optimizer.step()
    return [
        *lines,
        f"{expected.total} updates by OLMo-core's optimizer",
        *expected.agree_on_moving_shares(folder),
    ]
