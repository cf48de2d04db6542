"""What an artefact says of where it came from."""

import json

import jax

from metatune.fit.making import provenance
from metatune.inner import prepare
from metatune.models import build, save_pretrained, weights_sha256
from metatune.recipe import schema

CONFIG = {"model_type": "gpt2", "n_embd": 8, "n_layer": 1, "n_head": 2, "vocab_size": 259}


def of(**model):
    return provenance(
        prepare(
            schema.Recipe(
                model=schema.ModelSpec(**model),
                data=schema.DataSpec(
                    domains={"code": schema.SourceSpec(shipped="code_stdlib")},
                    target={"code": 1.0},
                    sequence_length=8,
                    batch_size=2,
                ),
                inner=schema.InnerSpec(optimizer=schema.AdamWSpec(learning_rate=1e-3), steps=2),
                tune=schema.TuneSpec(
                    learning_rates=schema.LearningRatesSpec(per="global", windows=1)
                ),
                outer=schema.OuterSpec(steps=1),
            )
        )
    )


def test_a_pretrained_model_is_named_by_its_config_and_the_hash_of_its_weights(tmp_path):
    model = build(CONFIG)
    save_pretrained(tmp_path, model, jax.jit(model.init)(jax.random.key(0)))
    found = of(pretrained=str(tmp_path))
    assert found["model_config"] == json.loads((tmp_path / "config.json").read_text())
    assert found["weights_sha256"] == weights_sha256(tmp_path)


def test_a_fresh_model_is_named_by_its_config_alone():
    found = of(config=CONFIG)
    assert found["model_config"] == CONFIG
    assert "weights_sha256" not in found
