"""Of metatune_torchtitan.py, by torchtitan's own containers."""

import warnings
from importlib import import_module
from pathlib import Path

from metatune.artefact.exporters.verifiers import named
from metatune.artefact.exporters.verifiers.expected import Expected, agree
from metatune.artefact.exporters.verifiers.modules import give_gradients, tiny


def verify(expected: Expected, folder: Path) -> list[str]:
    """What is verified of the names, and the rates of every update."""
    lines = named.verify(expected, folder)
    exported, groups, names = named.made(expected)
    ours, model = import_module("metatune_torchtitan"), tiny(names)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = ours.TunedOptimizers.Config(implementation="for-loop")
        optimizers = config.build(model_parts=[model])
        schedules = ours.TunedSchedules.Config().build(
            optimizers=optimizers, training_steps=expected.total
        )
    by_first = {group.names[0]: group for group in groups}
    for step in range(expected.total):
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                rate = exported.rate_at(by_first[group["tuned"]], step, expected.total)
                agree(f"update {step}, rate of {group['tuned']}", group["lr"], rate)
                own = expected.own(names[group["tuned"]][0])
                wanted = [own["b1"], own["b2"]]
                agree(f"betas of {group['tuned']}", list(group["betas"]), wanted)
        give_gradients(model)
        optimizers.step()
        schedules.step()
    return [
        *lines,
        f"{expected.total} updates by torchtitan's containers",
        *expected.agree_on_moving_shares(folder),
    ]
