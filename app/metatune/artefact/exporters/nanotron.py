"""Exports to nanotron: stages of data with weights."""

from metatune.artefact.capabilities import able
from metatune.artefact.exporters.base import Exporter, Production, as_yaml, config_files, place
from metatune.artefact.exporters.one_rate import one_rate
from metatune.artefact.exporters.stages import averaged, staged
from metatune.artefact.exporters.supply import supply

USAGE = """
Merge `tuned.yaml` into your configuration and put in the folders of your data. Stages start at
update 1 there, the first.
"""


def _files(production: Production) -> dict[str, bytes | str]:
    files, lost, mixture = {}, [], production.artefact.mixture
    if mixture is not None:
        cut = staged(mixture, production.steps)
        stages = [
            {
                "name": f"tuned_{number}",
                "start_training_step": stage.start + 1,
                "data": {
                    "seed": 0,
                    "num_loading_workers": 1,
                    "dataset": {
                        "dataset_folder": [place(name) for name in stage.values],
                        "dataset_weights": list(stage.values.values()),
                    },
                },
            }
            for number, stage in enumerate(cut.stages, 1)
        ]
        files["tuned.yaml"] = as_yaml({"data_stages": stages})
        lost += [
            "the sequences of a stage are whole numbers: off by less than one for each domain",
            *cut.lost(),
            *supply(
                production,
                averaged(mixture, production.steps),
                "every stage must hold its share of the whole training, not of the stage alone",
            ),
        ]
    usage = USAGE + one_rate(production)
    return config_files(production, "nanotron (2026-04-07)", usage, files, lost)


NANOTRON = Exporter(
    "nanotron",
    "YAML of data stages with weights",
    able(mixture="quantised", moving_mixture="quantised"),
    _files,
    "2026-04-07",
    numbers={
        "start_training_step": "the first update of the stage, from 1",
        "seed": "of the order of the data",
        "num_loading_workers": "of the loader",
        "dataset_weights": "share of the sequences of the stage",
    },
)
