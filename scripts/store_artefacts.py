"""Stores one small artefact of each kind of tuning, and the hashes of its exports.

They hold the format and the exports to what they were: run it where one of them is to change, and
say why in the commit. Of each recipe it takes meta-parameters at random; nothing is trained.

python scripts/store_artefacts.py [NAME ...]
"""

import dataclasses
import hashlib
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np

from metatune.artefact import Artefact, ArtefactError, load, write
from metatune.artefact.exporters import EXPORTERS, export
from metatune.fit.making import artefact_of
from metatune.inner import prepare
from metatune.recipe.reading import parse

STORED = Path(__file__).parents[1] / "tests/artefact/stored"
HASHES = STORED / "exports.json"
README = "stored\n"

MODEL = {
    "model_type": "llama",
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
SHIPPED = {"code": {"shipped": "code_stdlib"}, "drama": {"shipped": "drama_shakespeare"}}
TALK = {"talk": {"jsonl": "talk.jsonl", "prompt": "p", "completion": "c"}, "code": SHIPPED["code"]}
LABELS = {name: {"jsonl": "talk.jsonl", "column": c, "label": "l"} for name, c in ("ac", "bp")}
ADAMW = {"kind": "adamw", "learning_rate": 3e-3, "schedule": {"kind": "cosine", "warmup": 0.2}}
LOSS = {"z_loss": 1e-4, "label_smoothing": 0.1, "multi_token_prediction": {"weight": 0.2}}
POINT = {"initialisation": {"kind": "point"}}
RESULT = {"status": "unfinished", "unit": "nats per byte", "outer_steps": 0, "best_outer_step": 0}

CASES: dict[str, dict[str, Any]] = {
    "rates": {"learning_rates": {"per": "tensor", "windows": 3}},
    "rates_linear": {
        "learning_rates": {"per": "kind", "windows": 3, "interpolation": "linear"},
    },
    "rates_in_rows": {"learning_rates": {"per": "row", "windows": 2}},
    "rates_in_elements": {
        "learning_rates": {"per": "element", "windows": 2, "interpolation": "linear"},
    },
    "mixture": {"mixture": {"windows": 3, "floor": 0.02}},
    "loss_weights": {"loss_weights": {"windows": 2}},
    "classes": {"loss_weights": {"per": "class", "windows": 2}, "domains": TALK},
    "labels": {"loss_weights": {"per": "label", "windows": 2}, "domains": LABELS},
    "positions": {"loss_weights": {"per": "position", "windows": 2, "buckets": 3}},
    "frequencies": {"loss_weights": {"per": "frequency", "windows": 2, "buckets": 3}},
    "optimizer": {
        "optimizer": {
            "weight_decay": {"per": "layer", "windows": 2},
            "b1": {"windows": 2},
            "b2": {},
            "eps": {},
            "clip_norm": {"windows": 3},
        },
    },
    "sgd": {
        "learning_rates": {"per": "global"},
        "optimizer": {"momentum": {"windows": 2}},
        "inner": {"kind": "sgd", "learning_rate": 0.1, "momentum": 0.5},
    },
    "loss_terms": {
        "loss_terms": {
            "z_loss": {"windows": 2},
            "label_smoothing": {},
            "multi_token_prediction": {},
        },
        "loss": LOSS,
    },
    "start": POINT,
    "learned_update": {"learned_update": {"hidden_size": 4, "per": {"a": "self_attn"}}},
    "rater": {"rater": {"kind": "mlp", "hidden_size": 4}},
    "rater_with_attention": {"rater": {"kind": "transformer", "hidden_size": 4}},
    "averaging": {"averaging": {"windows": 2, "start": 0.25}},
    "several": {
        "learning_rates": {"per": "kind", "windows": 4},
        "mixture": {"windows": 2},
        "loss_weights": {"per": "position", "windows": 2},
        "optimizer": {"weight_decay": {}, "b1": {}},
        "loss_terms": {"z_loss": {}},
        "learned_update": {"hidden_size": 4, "step_size": "kept"},
        "rater": {"kind": "mlp", "hidden_size": 4},
        **POINT,
        "loss": LOSS,
    },
}
"""What each tunes, and what it changes of the recipe besides."""


def recipe_of(case: dict[str, Any]) -> dict[str, Any]:
    """The whole recipe of a case."""
    tune = dict(case)
    domains = tune.pop("domains", SHIPPED)
    inner = {"steps": 12, "optimizer": tune.pop("inner", ADAMW), "loss": tune.pop("loss", None)}
    fresh = {"fresh": {"initialisation": False}} if "initialisation" in tune else {}
    return {
        "model": {"config": MODEL},
        "data": {
            "domains": domains,
            "target": {next(iter(domains)): 1.0},
            "sequence_length": 16,
            "batch_size": 4,
        },
        "inner": {key: value for key, value in inner.items() if value is not None},
        "tune": tune,
        "outer": {"steps": 1, **fresh},
    }


def made(case: dict[str, Any]) -> Artefact:
    """An artefact of meta-parameters near those of its recipe, without its origin."""
    training = prepare(parse(recipe_of(case), "stored"))
    random = np.random.default_rng(1)
    eta = {
        key: start + np.asarray(random.normal(size=start.shape) * 0.4, np.float32)
        for key, start in training.initial_eta().items()
    }
    tuned = artefact_of(training, jax.tree.map(jax.numpy.asarray, eta), RESULT)
    return dataclasses.replace(tuned, origin=None)


def exported(artefact: Artefact) -> dict[str, Any]:
    """The hashes of the files of each export, or why it is refused, by target."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for target in EXPORTERS:
            for lossy in (False, True):
                out, name = Path(folder) / f"{target}-{lossy}", target + " --lossy" * lossy
                try:
                    export(artefact, target, out, lossy=lossy, sequences_per_step=4)
                except ArtefactError as error:
                    found[name] = str(error)
                    continue
                files = {path.name: path.read_bytes() for path in sorted(out.iterdir())}
                found[name] = {n: hashlib.sha256(held).hexdigest() for n, held in files.items()}
                if not lossy:
                    break  # `--lossy` has nothing to drop
    return found


def main(names: list[str]) -> None:
    """Stores all cases, or some anew."""
    rows = [
        {"p": f"say {i}", "c": f"it is {i * i}, {'y' * (i % 11)} done " * 3, "l": "ab"[i % 2]}
        for i in range(400)
    ]
    Path("talk.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    hashes = json.loads(HASHES.read_text()) if HASHES.is_file() else {}
    for name in names or CASES:
        folder = STORED / name
        shutil.rmtree(folder, ignore_errors=True)
        write(folder, made(CASES[name]), README)
        tuned = load(folder)
        # Reading puts settings of the optimizer into one order.
        write(folder, tuned, README)
        hashes[name] = exported(tuned)
    HASHES.write_text(json.dumps(hashes, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
