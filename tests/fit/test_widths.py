"""Widths of models from their configs, and exports that are fitted to them."""

import json

import numpy as np
import pytest

from metatune.artefact import Artefact, ArtefactError, LearningRates, Optimizer
from metatune.artefact.widths import Fans
from metatune.fit.comparing.widths import fans, fitted
from metatune.models import build
from metatune.recipe.faults import RecipeError

LLAMA = {
    "model_type": "llama",
    "hidden_size": 8,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}
GPT2 = {"model_type": "gpt2", "n_embd": 8, "n_layer": 1, "n_head": 2, "vocab_size": 17}
BLOCK = "model.layers.0."


def test_fans_of_llama():
    found = fans(build(LLAMA, vocab_size=17))
    assert found["model.embed_tokens.weight"] == Fans(1, 8)
    assert found["lm_head.weight"] == Fans(8, 1)
    assert found["model.norm.weight"] == Fans(1, 8)
    assert found[BLOCK + "mlp.up_proj.weight"] == Fans(8, 24)
    assert found[BLOCK + "mlp.down_proj.weight"] == Fans(24, 8)
    assert found[BLOCK + "input_layernorm.weight"] == Fans(1, 8)


def test_fans_of_gpt2_whose_matrices_lie_the_other_way():
    found = fans(build(GPT2))
    assert found["transformer.wpe.weight"] == Fans(1, 8)
    assert found["transformer.h.0.mlp.c_fc.weight"] == Fans(8, 32)
    assert found["transformer.h.0.mlp.c_proj.weight"] == Fans(32, 8)
    assert found["transformer.h.0.mlp.c_fc.bias"] == Fans(1, 32)


@pytest.fixture
def tuned():
    names = fans(build(LLAMA, vocab_size=17))
    adamw = dict.fromkeys(("weight_decay", "b1", "b2", "eps", "eps_root"), 0.0)
    return Artefact(
        10,
        1000,
        LearningRates((0.0,), "constant", {name: np.array([0.25]) for name in names}),
        None,
        None,
        Optimizer({"kind": "adamw", **adamw, "clip_norm": 1.0}, ()),
        {"model_config": LLAMA},
        {},
    )


def write(folder, **changes):
    config = {**LLAMA, "vocab_size": 1000, "transformers_version": "5.0", **changes}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_a_model_twice_as_wide(tuned, tmp_path):
    wide = write(tmp_path, hidden_size=16, intermediate_size=48, num_attention_heads=4)
    found = fitted(tuned, wide, "mup").learning_rates.parameters
    kept = {name for name, rate in found.items() if rate[0] == 0.25}
    assert {name for name, rate in found.items() if rate[0] == 0.125} == found.keys() - kept
    norms = {BLOCK + "input_layernorm.weight", BLOCK + "post_attention_layernorm.weight"}
    assert kept == norms | {"model.embed_tokens.weight", "model.norm.weight"}


def test_a_model_with_other_parameters_is_refused(tuned, tmp_path):
    deep = write(tmp_path, num_hidden_layers=2)
    for rule in (None, "mup"):
        with pytest.raises(ArtefactError, match="model.layers.1.mlp.up_proj.weight .nearest: mode"):
            fitted(tuned, deep, rule)
    assert fitted(tuned, write(tmp_path), None) is tuned


def test_other_shapes_are_refused_without_a_rule(tuned, tmp_path):
    grouped = write(tmp_path, num_key_value_heads=1)
    with pytest.raises(ArtefactError) as error:
        fitted(tuned, grouped, None)
    assert str(error.value).splitlines() == [
        f"{tmp_path}: its parameters have other shapes than those that were tuned",
        "  2 parameters of another shape:",
        f"    {BLOCK}self_attn.k_proj.weight: [8, 8] of the artefact, [4, 8] of {tmp_path}",
        f"    {BLOCK}self_attn.v_proj.weight: [8, 8] of the artefact, [4, 8] of {tmp_path}",
        "  tune on that model, carry the rates to its widths (--widths mup), or export without "
        "--against to take the rates as they are",
    ]
    assert fitted(tuned, grouped, "mup") is not tuned


def test_another_vocabulary_is_another_shape_where_the_artefact_says_its_own(tuned, tmp_path):
    target = write(tmp_path)
    tuned.provenance["vocab_size"] = 1000
    assert fitted(tuned, target, None) is tuned
    tuned.provenance["vocab_size"] = 999
    with pytest.raises(ArtefactError) as error:
        fitted(tuned, target, None)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        assert f"{name}: [999, 8] of the artefact, [1000, 8] of {tmp_path}" in str(error.value)


def test_bad_input_names_the_cure(tuned, tmp_path):
    with pytest.raises(ArtefactError, match="--widths = 'mup': needs the model .* --against MODEL"):
        fitted(tuned, None, "mup")
    with pytest.raises(RecipeError, match="config.json can't be read as a model's config"):
        fitted(tuned, tmp_path, "mup")
    (tmp_path / "config.json").write_text(json.dumps({**LLAMA, "hidden_size": 0}))
    with pytest.raises(RecipeError, match=r"hidden_size = 0"):
        fitted(tuned, tmp_path, "mup")
    tuned.provenance.clear()
    with pytest.raises(ArtefactError, match="widths of the tuned model can't be known"):
        fitted(tuned, write(tmp_path), "mup")
