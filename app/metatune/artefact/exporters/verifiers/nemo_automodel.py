"""Of tuned.yaml, by the groups and the scheduler of NeMo AutoModel."""

from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import yaml

from metatune.artefact.exporters.verifiers.expected import Expected, agree
from metatune.artefact.exporters.verifiers.modules import groups_of, tiny


def verify(expected: Expected, folder: Path) -> list[str]:
    """Peaks of the rates, and weight decay at every update."""
    theirs = import_module("nemo_automodel.components.optim.optimizer")
    config = yaml.safe_load((folder / "tuned.yaml").read_text(encoding="utf-8"))
    model = tiny(expected.rates)
    options = dict(config["optimizer"])
    module, name = options.pop("_target_").rsplit(".", 1)
    own = getattr(import_module(module), name)
    (optimizer,) = theirs.build_optimizer_config(own, options).build(model)
    training = SimpleNamespace(epoch_len=None, max_steps=expected.total, num_epochs=1)
    built = theirs.LRSchedulerConfig(**config["lr_scheduler"]).build(optimizer, training)
    peaks = dict.fromkeys(expected.rates, 0.0)
    for step in range(expected.total):
        for name, group in groups_of(model, optimizer).items():
            decay = float(group["weight_decay"])
            agree(f"update {step}, weight decay of {name}", decay, expected.decay(name))
            peaks[name] = max(peaks[name], group["lr"])
        built[0].step(1)
    for name, peak in peaks.items():
        agree(f"peak of {name}", peak, expected.peaks[name])
    return [f"peaks of the rates, and weight decay, of {len(peaks)} parameters by its scheduler"]
