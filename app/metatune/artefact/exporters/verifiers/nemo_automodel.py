"""Of tuned.yaml, by the groups and the scheduler of NeMo AutoModel."""

from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import torch
import yaml

from metatune.artefact.exporters.verifiers.expected import Expected, agree
from metatune.artefact.exporters.verifiers.modules import groups_of, tiny


def verify(expected: Expected, folder: Path) -> list[str]:
    """Peaks of the rates, and weight decay at every update."""
    theirs = import_module("nemo_automodel.components.optim.optimizer")
    config = yaml.safe_load((folder / "tuned.yaml").read_text(encoding="utf-8"))
    model = tiny(expected.rates)
    options = {key: value for key, value in config["optimizer"].items() if key != "_target_"}
    overrides = theirs._coerce_param_group_overrides(options.pop("param_group_overrides"))
    groups = theirs._build_param_groups(list(model.named_parameters()), overrides)
    optimizer = torch.optim.AdamW(groups, **options)
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
