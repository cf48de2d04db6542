"""Of metatune_schedules.py for PyTorch: the optimizer of a tiny model, at every update."""

from importlib import import_module
from pathlib import Path

from metatune.artefact.exporters.verifiers.expected import Expected, agree
from metatune.artefact.exporters.verifiers.modules import give_gradients, groups_of, tiny


def verify(expected: Expected, folder: Path) -> list[str]:
    """Rates at the updates of `expected`, decay, moments and shares."""
    exported = import_module("metatune_schedules")
    model = tiny(expected.rates, expected.matrices)
    optimizer = exported.optimizer(model, expected.total)
    schedule = exported.Schedule(optimizer, expected.total)
    for name, group in groups_of(model, optimizer).items():
        if expected.moving:
            continue
        agree(f"weight decay of {name}", float(group["weight_decay"]), expected.decay(name))
        settings = expected.own(name)
        if "betas" in group:
            agree(f"betas of {name}", list(group["betas"]), [settings["b1"], settings["b2"]])
            agree(f"eps of {name}", float(group["eps"]), float(settings["eps"]))
        else:
            agree(f"momentum of {name}", float(group["momentum"]), float(settings["momentum"]))
    for step in range(expected.total):
        if step in expected.at:
            for name, group in groups_of(model, optimizer).items():
                expected.agree_on_rate(name, step, group["lr"])
        give_gradients(model)
        optimizer.step()
        schedule.step()
    lines = [expected.compared("rates, weight decay and moments")]
    return [*lines, *expected.agree_on_shares(exported.mixture)]
