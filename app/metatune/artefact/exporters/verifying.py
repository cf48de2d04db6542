"""Verifies a written export by the target's own code, where that is installed."""

import json
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from metatune.artefact.errors import ArtefactError
from metatune.artefact.exporters.base import Production
from metatune.artefact.exporters.static_rates import static_rates
from metatune.artefact.exporters.verifiers.expected import Expected
from metatune.artefact.format import Artefact
from metatune.artefact.sections.loss_weights import ClassWeights
from metatune.recipe.faults import Fault

VERIFIERS: Final = {
    "json": ("plain", ()),
    "csv": ("tables", ()),
    "optax": ("optax", ("optax",)),
    "grain": ("optax", ("optax",)),
    "torch": ("pytorch", ("torch",)),
    "litdata": ("pytorch", ("torch",)),
    "mosaic-streaming": ("pytorch", ("torch",)),
    "hf-trainer": ("trainer", ("torch", "transformers", "accelerate")),
    "trl": ("trainer", ("torch", "transformers", "accelerate")),
    "axolotl": ("trainer", ("torch", "transformers", "accelerate")),
    "megatron": ("named", ()),
    "levanter": ("levanter", ("jax", "optax", "levanter")),
    "torchtitan": ("torchtitan", ("torch", "torchtitan")),
    "olmo-core": ("olmo_core", ("torch", "olmo_core")),
    "nemo-automodel": ("nemo_automodel", ("torch", "nemo_automodel")),
    "llm-foundry": ("llm_foundry", ("torch", "llmfoundry")),
}
"""By target: a module of `verifiers`, and the packages that must be installed."""

RUN: Final = """\
import json, sys
from importlib import import_module
from pathlib import Path

sys.path.insert(0, sys.argv[2])
from metatune.artefact.exporters.verifiers.expected import Expected

expected = Expected(**json.load(sys.stdin))
module = import_module(f"metatune.artefact.exporters.verifiers.{sys.argv[1]}")
lines = module.verify(expected, Path(sys.argv[2]))
print()
print(json.dumps(lines))
"""

SPREAD: Final = 8
"""Updates, from the first to the last, at which values are compared besides the first three."""


def refuse_unverifiable(artefact: Artefact, target: str) -> None:
    """Asked before anything is written.

    Args:
        artefact: as it is exported.
        target: a name of `EXPORTERS`.

    Raises:
        ArtefactError: no verification is known, of the target or of what was tuned, or the target
            isn't installed here.
    """
    if target not in VERIFIERS:
        problem = "nothing of its is run here: no verification is known"
        cure = f"verified can be: {', '.join(VERIFIERS)}"
        raise ArtefactError("export", [Fault("verified", target, problem, cure)])
    if artefact.learning_rates.elements is not None or artefact.learned_update is not None:
        problem = "it runs on a tiny model, which what was tuned within tensors doesn't fit"
        raise ArtefactError("export", [Fault("verified", target, problem, "leave it out")])
    _, packages = VERIFIERS[target]
    if missing := [name for name in packages if find_spec(name) is None]:
        problem, cure = f"needs {' and '.join(missing)}", "install it beside metatune"
        raise ArtefactError("export", [Fault("verified", target, problem, cure)])


def verify(production: Production, target: str, folder: str | Path) -> list[str]:
    """What was compared of an export, a line each.

    The code of the export and the target's own run in a process of their own, on the CPU, with a
    tiny model whose parameters have the tuned names.

    Args:
        production: what was exported, that `refuse_unverifiable` doesn't refuse.
        target: a name of `EXPORTERS`.
        folder: that it was written into.

    Raises:
        ArtefactError: the target's code fails, or what it would train with isn't what was tuned.
    """
    artefact = production.artefact
    module, _ = VERIFIERS[target]
    if isinstance(artefact.loss_weights, ClassWeights) or artefact.loss_terms is not None:
        module = "pytorch" if module == "trainer" else module  # its loss needs logits
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", RUN, module, str(Path(folder).resolve())],
        input=json.dumps(expected(production)._asdict()),
        capture_output=True,
        text=True,
    )
    if done.returncode:
        said = (done.stderr.strip() or "it says nothing").splitlines()[-1]
        raise ArtefactError("export", [Fault("verified", target, said)])
    return json.loads(done.stdout.splitlines()[-1])  # a trainer may print before


def expected(production: Production) -> Expected:
    """What the artefact says, by its own code."""
    artefact, total = production.artefact, production.steps
    spread = {i * (total - 1) // (SPREAD - 1) for i in range(SPREAD)}
    at = sorted({*range(min(3, total)), *spread})
    rates = replace(artefact.learning_rates, elements=None)
    columns = rates.over(at, total).T
    shares = None
    if artefact.mixture is not None:
        over = artefact.mixture.over(at, total)
        shares = {name: row.tolist() for name, row in over.items()}
    return Expected(
        total=total,
        at=at,
        rates={name: row.tolist() for name, row in zip(rates.parameters, columns, strict=True)},
        peaks=static_rates(artefact).parameters,
        shares=shares,
        optimizer=dict(artefact.optimizer.settings),
        decayed=list(artefact.optimizer.decayed),
        moving=artefact.optimizer.schedules is not None,
    )
