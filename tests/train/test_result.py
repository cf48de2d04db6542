"""What is written of a training with adapters and a tokenizer of its own."""

import json

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import load_file
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from metatune.inner import prepare
from metatune.models import load_pretrained
from metatune.recipe import schema
from metatune.train import result
from metatune.train.checkpoints import Position
from metatune.train.folder import TrainingFolder
from metatune.train.loop import Losses


def tokenizer_in(folder):
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<eos>"], initial_alphabet=alphabet
    )
    bpe.train_from_iterator(["the cat sat on the mat and the dog sat there"] * 9, trainer)
    PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<eos>").save_pretrained(folder)
    return str(folder)


def test_adapters_are_merged_and_the_tokenizer_is_beside_the_model(tmp_path):
    config = {"model_type": "gpt2", "n_embd": 8, "n_layer": 2, "n_head": 2}
    lora = schema.LoraSpec(targets=("c_attn",), rank=2)
    training = prepare(
        schema.Recipe(
            model=schema.ModelSpec(config=config),
            data=schema.DataSpec(
                domains={"code": schema.SourceSpec(shipped="code_stdlib")},
                target={"code": 1.0},
                sequence_length=8,
                batch_size=2,
                tokenizer=tokenizer_in(tmp_path / "tokenizer"),
            ),
            inner=schema.InnerSpec(
                optimizer=schema.AdamWSpec(learning_rate=1e-3), steps=2, lora=lora
            ),
            tune=schema.TuneSpec(learning_rates=schema.LearningRatesSpec(per="global", windows=1)),
            outer=schema.OuterSpec(steps=1),
        )
    )
    state = training.initialise(jax.random.key(0))
    # B begins at zero, where an adapter would change nothing.
    state = state._replace(params=jax.tree.map(lambda leaf: leaf + 0.5, state.params))
    folder = TrainingFolder(tmp_path)
    folder.model.mkdir()
    (folder.model / "left.txt").write_text("by a process that was killed")
    position, losses = Position(2, state, 1.5), Losses(3.0, {"code": 3.0})
    written = result.write(folder, training, position, losses, test_seed=1, artefact_sha256="ab")
    assert folder.finished() == written
    assert written["tokens"] == 2 * 2 * 8
    assert (written["held_out"], written["domains"]) == (3.0, {"code": 3.0})
    assert written["unit"] == "nats per token"
    assert {path.name for path in folder.model.iterdir()} >= {
        "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    config = json.loads((folder.model / "config.json").read_text())
    special = [config[f"{which}_token_id"] for which in ("bos", "eos", "pad")]
    assert special == [None, 0, None]  # the tokenizer's, where gpt2's own would be 50256
    assert not (folder.model / "generation_config.json").exists()
    assert not (folder.model / "left.txt").exists()
    assert not any("lora" in name for name in load_file(folder.model / "model.safetensors"))
    model, params = load_pretrained(folder.model)
    tokens = jnp.arange(8)[None]
    np.testing.assert_allclose(
        jax.jit(model.logits)(params, tokens),
        jax.jit(training.model.logits)(training.part.joined(state.params, training.frozen), tokens),
        atol=1e-5,
    )
    text = "the cat sat there"
    (ours,) = training.corpus.tokenizer.encode_batch([text])
    assert AutoTokenizer.from_pretrained(folder.model)(text).input_ids == ours.tolist()
