"""Exports to LLaMA-Factory: probabilities of interleaved datasets."""

from metatune.artefact.capabilities import able
from metatune.artefact.errors import ArtefactError
from metatune.artefact.exporters.base import Exporter, Production, as_yaml, config_files
from metatune.artefact.exporters.one_rate import one_rate
from metatune.artefact.exporters.stages import averaged
from metatune.artefact.exporters.supply import documents, supply
from metatune.recipe.faults import Fault

USAGE = """
Merge `tuned.yaml` into your configuration; the names are those of `dataset_info.json`.
"""


def _files(production: Production) -> dict[str, bytes | str]:
    files, lost, mixture = {}, [], production.artefact.mixture
    if mixture is not None:
        faults = [
            Fault("mixture.domains", name, "holds a comma, which parts the names", "rename it")
            for name in mixture.domains
            if "," in name
        ]
        if faults:
            raise ArtefactError("export", faults)
        means = averaged(mixture, production.steps)
        shares, how = documents(production, means)
        whole = sum(shares.values())
        config = {
            "dataset": ",".join(shares),
            # With `interleave_under` the domain that ends first would end the pass.
            "mix_strategy": "interleave_over",
            "interleave_probs": ",".join(repr(share / whole) for share in shares.values()),
        }
        files["tuned.yaml"] = as_yaml(config)
        lost += [how, *supply(production, means, "it is repeated until every domain was read once")]
    usage = USAGE + one_rate(production)
    return config_files(production, "LLaMA-Factory 0.9.5", usage, files, lost)


LLAMA_FACTORY = Exporter(
    "llama-factory",
    "YAML of the probabilities of interleaved datasets",
    able(mixture="fitted"),
    _files,
    "0.9.5",
    numbers={"interleave_probs": "share of the rows, that is of the documents, of each data set"},
)
