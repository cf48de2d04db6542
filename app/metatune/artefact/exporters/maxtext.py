"""Exports to MaxText: a Grain mixture for each stage of training."""

import json

from metatune.artefact.capabilities import able
from metatune.artefact.exporters.base import Exporter, Production, as_yaml, config_files, place
from metatune.artefact.exporters.one_rate import one_rate
from metatune.artefact.exporters.stages import averaged, staged
from metatune.artefact.exporters.supply import documents, supply
from metatune.artefact.exporters.whole_weights import truncation

USAGE = """
Put the paths of your data into the `phase_*.json`, and merge `tuned.yaml` into your configuration.
"""

PHASES = """
Start with `phase_1.json`. Stop at each update named here, and restart from the checkpoint with the
next file as `grain_train_mixture_config_path`; the sources of the mixture go on where they were.
"""


def _files(production: Production) -> dict[str, bytes | str]:
    usage, lost, files = USAGE + one_rate(production), [], {}
    mixture = production.artefact.mixture
    if mixture is not None:
        cut = staged(mixture, production.steps)
        means = averaged(mixture, production.steps)
        _, how = documents(production, means)
        rows = [documents(production, stage.values)[0] for stage in cut.stages]
        for number, stage in enumerate(cut.stages, 1):
            kept = {domain: share for domain, share in rows[number - 1].items() if share > 0}
            zero = [domain for domain in stage.values if domain not in kept]
            if zero:
                lost.append(f"phase {number} leaves out {', '.join(zero)}: a share of 0")
            entries = {name: {"path": place(name), "weight": w} for name, w in kept.items()}
            text = json.dumps(entries, indent=2, ensure_ascii=False)
            files[f"phase_{number}.json"] = text + "\n"
        config = {
            "dataset_type": "grain",
            "grain_file_type": "arrayrecord",
            "grain_train_mixture_config_path": "phase_1.json",
        }
        files["tuned.yaml"] = as_yaml(config)
        if len(cut.stages) > 1:
            lines = (f"- update {s.start:,}: `phase_{n}.json`" for n, s in enumerate(cut.stages, 1))
            usage += PHASES + "\n" + "\n".join([*lines][1:]) + "\n"
        off = max(truncation(row) for row in rows)
        lost += [
            how,
            f"Grain makes whole numbers of the shares: off by up to {off:.3g}",
            *cut.lost(),
            *supply(production, means, "Grain repeats it"),
        ]
    return config_files(production, "MaxText 0.2.5", usage, files, lost)


MAXTEXT = Exporter(
    "maxtext",
    "Grain mixtures by phase of the training",
    able(mixture="fitted", moving_mixture="fitted"),
    _files,
    "0.2.5",
    numbers={
        "weight": "share of the records before packing, that is of the documents, of the phase"
    },
)
