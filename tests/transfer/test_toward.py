"""Sides from configs, and artefacts for the model of a folder."""

import json

import numpy as np
import pytest
from transfer_sides import GPT2, LLAMA, NANOCHAT, side

from metatune.artefact import Artefact, ArtefactError, LearningRates, Optimizer
from metatune.recipe.faults import RecipeError
from metatune.transfer import Parameter, of_artefact
from metatune.transfer.enlarging import enlarged
from metatune.transfer.toward import NO_SIZES, toward_folder

BLOCK = "model.layers.0."


def test_parameters_of_llama():
    found = side().parameters
    assert found["model.embed_tokens.weight"] == Parameter("embedding", 1, 8, std=0.02)
    assert found["lm_head.weight"] == Parameter("head", 8, 1, std=0.02)
    assert found["model.norm.weight"] == Parameter("vector", 1, 8)
    assert found[BLOCK + "mlp.up_proj.weight"] == Parameter("matrix", 8, 16, 0, std=0.02)
    down = Parameter("matrix", 16, 8, 1, writes=True, std=0.02)
    assert found["model.layers.1.mlp.down_proj.weight"] == down
    query = Parameter("matrix", 8, 8, 0, queries=True, std=0.02)
    assert found[BLOCK + "self_attn.q_proj.weight"] == query
    assert found[BLOCK + "input_layernorm.weight"] == Parameter("vector", 1, 8, 0)


def test_parameters_of_gpt2_whose_matrices_lie_the_other_way():
    found = side(config=GPT2).parameters
    assert found["transformer.wpe.weight"] == Parameter("embedding", 1, 8, std=0.02)
    fc = Parameter("matrix", 8, 32, 0, std=0.02)
    assert found["transformer.h.0.mlp.c_fc.weight"] == fc
    end = Parameter("matrix", 32, 8, 0, writes=True, std=0.01)  # shrunk by the root of 2 x 2
    assert found["transformer.h.0.mlp.c_proj.weight"] == end
    assert found["transformer.h.0.mlp.c_fc.bias"] == Parameter("vector", 1, 32, 0)


def test_parameters_of_nanochat_whose_norms_have_none():
    found = side(config=NANOCHAT).parameters
    assert {parameter.role for parameter in found.values()} == {"embedding", "head", "matrix"}
    # Of what writes to the stream, attention's begins shrunk, by the root of 2 x 2.
    output = Parameter("matrix", 8, 8, 0, writes=True, std=0.01)
    assert found[BLOCK + "self_attn.o_proj.weight"] == output
    assert found[BLOCK + "mlp.fc2.weight"] == Parameter("matrix", 16, 8, 0, writes=True, std=0.02)


def test_a_norm_that_heads_share():
    config = {**LLAMA, "model_type": "qwen3", "head_dim": 4, "num_key_value_heads": 1}
    found = side(config=config).parameters[BLOCK + "self_attn.q_norm.weight"]
    assert found == Parameter("query_key_norm", 1, 4, 0)


@pytest.mark.parametrize("config", [LLAMA, GPT2], ids=["llama", "gpt2"])
def test_enlarged_configs_have_more_heads_of_the_same_size(config):
    small, big = side(config=config), side(config=enlarged(config, width=3, depth=2))
    assert (big.hidden, big.depth, big.heads) == (24, 4, 6)
    assert big.head_dim == small.head_dim


@pytest.fixture
def tuned():
    """A constant rate of 1/4 on all parameters."""
    names = side().parameters
    adamw = dict.fromkeys(("weight_decay", "b1", "b2", "eps", "eps_root"), 0.0)
    return Artefact(
        10,
        1000,
        LearningRates((0.0,), "constant", {name: np.array([0.25]) for name in names}),
        None,
        None,
        Optimizer({"kind": "adamw", **adamw, "clip_norm": 1.0}, ()),
        {"model_config": {**LLAMA}},
        {},
    )


def written(folder, **changes):
    config = {**LLAMA, "transformers_version": "5.0", **changes}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_a_model_twice_as_wide(tuned, tmp_path):
    wide = written(tmp_path, hidden_size=16, intermediate_size=32, num_attention_heads=4)
    found = toward_folder(tuned, wide, "mup").artefact.learning_rates.parameters
    kept = {name for name, rate in found.items() if rate[0] == 0.25}
    assert {name for name, rate in found.items() if rate[0] == 0.125} == found.keys() - kept
    assert kept == {name for name in found if "norm" in name or "embed" in name}


def test_a_deeper_model_for_more_updates(tuned, tmp_path):
    deep = written(tmp_path, num_hidden_layers=6)
    found = toward_folder(tuned, deep, steps=40).artefact
    assert found.learning_rates.parameters["model.layers.5.mlp.up_proj.weight"] == [0.125]
    assert found.learning_rates.parameters["model.layers.5.mlp.down_proj.weight"] == (
        pytest.approx([0.125 / 3])
    )
    again = toward_folder(found, deep)
    assert again.artefact is found, "what was carried is for its target as it is"
    assert of_artefact(found).depth == 6


def test_the_same_model_is_left_as_it_is(tuned, tmp_path):
    assert toward_folder(tuned, written(tmp_path)).artefact is tuned
    assert toward_folder(tuned, None).artefact is tuned


def test_other_kinds_of_parameters_are_named_on_both_sides(tuned, tmp_path):
    biased = written(tmp_path, attention_bias=True)
    with pytest.raises(ArtefactError) as caught:
        toward_folder(tuned, biased)
    said = str(caught.value)
    assert "its parameters aren't those of the artefact" in said
    assert f"parameters of {tmp_path} that the artefact doesn't have:" in said
    assert "model.layers.N.self_attn.q_proj.bias (nearest: model.layers.N.self_attn" in said


def test_an_artefact_that_does_not_say_its_model_is_compared_by_names(tuned, tmp_path):
    tuned.provenance.clear()
    found = toward_folder(tuned, written(tmp_path))
    assert found.artefact is tuned and found.warnings == (NO_SIZES,)
    with pytest.raises(ArtefactError, match="model.layers.2.mlp.up_proj.weight .nearest: mode"):
        toward_folder(tuned, written(tmp_path, num_hidden_layers=3))
    with pytest.raises(ArtefactError, match="model_config: isn't there, so that the sizes of"):
        toward_folder(tuned, tmp_path, "mup")


def test_bad_input_names_the_cure(tuned, tmp_path):
    with pytest.raises(ArtefactError, match="--rule = 'mup': needs the model .* --against MODEL"):
        toward_folder(tuned, None, "mup")
    with pytest.raises(RecipeError, match="config.json can't be read as a model's config"):
        toward_folder(tuned, tmp_path, "mup")
    (tmp_path / "config.json").write_text(json.dumps({**LLAMA, "hidden_size": 0}))
    with pytest.raises(RecipeError, match=r"hidden_size = 0"):
        toward_folder(tuned, tmp_path, "mup")
