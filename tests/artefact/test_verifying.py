"""`--verify` has the target's own code read an export, and finds what differs."""

import importlib
import importlib.util
import json

import pytest

from metatune.artefact import ArtefactError
from metatune.artefact.exporters import EXPORTERS, export
from metatune.artefact.exporters.base import Production
from metatune.artefact.exporters.verifying import VERIFIERS, expected, verify

LAYER = "model.layers.0."
NAMES = ("model.embed_tokens.weight", f"{LAYER}mlp.down_proj.weight", "model.norm.weight")


@pytest.mark.needs("torch", "accelerate")
def test_a_process_of_its_own_runs_the_trainer(make, tmp_path):
    done = export(make(NAMES), "hf-trainer", tmp_path / "out", verified=True)
    # The first three updates, and 8 from the first to the last.
    first, shares, trained = done.verified
    assert first == "rates, weight decay and moments of 3 parameters at 9 updates"
    assert shares == "shares of 3 domains at 9 updates"
    assert trained.startswith("3 updates by the Trainer of transformers 5")


def verified(artefact, target, folder, load_module):
    """As `verify`, but here."""
    load_module(folder, "json")  # puts the folder on the path, and forgets modules of others
    module = importlib.import_module(
        f"metatune.artefact.exporters.verifiers.{VERIFIERS[target][0]}"
    )
    return module.verify(expected(Production(artefact, 20, 512, None, "fraction")), folder)


@pytest.mark.parametrize("target", ["json", "optax", "csv", "megatron"])
def test_others(make, tmp_path, load_module, target):
    artefact = make(NAMES)
    export(artefact, target, tmp_path / "out", lossy=True, sequences_per_step=2048)
    lines = verified(artefact, target, tmp_path / "out", load_module)
    assert any("3 " in line for line in lines)


@pytest.mark.parametrize("target", ["torchtitan", "olmo-core", "nemo-automodel", "llm-foundry"])
def test_what_isnt_installed_is_said(make, tmp_path, target):
    package = VERIFIERS[target][1][-1]
    if importlib.util.find_spec(package) is not None:
        options = {"lossy": True, "sequences_per_step": 2048, "verified": True}
        assert export(make(NAMES), target, tmp_path / "out", **options).verified
        return
    with pytest.raises(ArtefactError, match=rf"verified = '{target}': needs .*{package}; install"):
        export(make(NAMES), target, tmp_path / "out", lossy=True, verified=True)
    assert not (tmp_path / "out").exists()


def test_a_target_without_a_verification_is_named(make, tmp_path):
    assert set(VERIFIERS) < set(EXPORTERS)
    with pytest.raises(ArtefactError, match="verified = 'nanotron': nothing of its is run here"):
        export(make(NAMES), "nanotron", tmp_path / "out", lossy=True, verified=True)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("keys", "to", "problem"),
    [
        (
            ("learning_rates", "parameters", NAMES[1], 1),
            0.5,
            f"update 1, rate of {NAMES[1]} is 0.5",
        ),
        (("optimizer", "b2"), 0.999, r"betas of .* is \[0.9, 0.999\], must be \[0.9, 0.95\]"),
        (("optimizer", "decayed", 0), NAMES[2], f"weight decay of {NAMES[0]} is 0.0, must be 0.1"),
        (("mixture", "weights", 0), [0.2, 0.3, 0.5], "update 0, share of code is 0.2"),
    ],
)
@pytest.mark.needs("torch")
def test_what_differs_is_found(make, tmp_path, load_module, keys, to, problem):
    artefact = make(NAMES)
    export(artefact, "torch", tmp_path / "out")
    file = tmp_path / "out" / "tuned.json"
    document = json.loads(file.read_text())
    at = document
    for key in keys[:-1]:
        at = at[key]
    at[keys[-1]] = to
    file.write_text(json.dumps(document))
    with pytest.raises(SystemExit, match=f"differs: {problem}"):
        verified(artefact, "torch", tmp_path / "out", load_module)


def test_why_a_process_failed_is_said(make, tmp_path):
    artefact = make(NAMES)
    export(artefact, "csv", tmp_path / "out", lossy=True)
    table = tmp_path / "out" / "mixture.csv"
    table.write_text(table.read_text().rsplit("\n", 2)[0])
    with pytest.raises(ArtefactError, match="differs: rows of mixture.csv is 19, must be 20"):
        verify(Production(artefact, 20, 512, None, "fraction"), "csv", tmp_path / "out")
