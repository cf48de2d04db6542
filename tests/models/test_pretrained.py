"""Weights in and out of safetensors files, and what is said of files that are wrong."""

import json

import huggingface_hub
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from metatune.models import build, load_pretrained, save_pretrained, weights_sha256
from metatune.recipe.faults import RecipeError

CONFIG = {
    "model_type": "llama",
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "vocab_size": 20,
    "torch_dtype": "bfloat16",
}
GPT2 = {"model_type": "gpt2", "n_embd": 8, "n_layer": 2, "n_head": 2, "vocab_size": 20}


@pytest.fixture
def saved(tmp_path):
    """A function from a config to a folder with a model of it, the model and its parameters."""

    def save(config=CONFIG):
        model = build(config)
        params = jax.jit(model.init)(jax.random.key(0))
        save_pretrained(tmp_path / "model", model, params)
        return tmp_path / "model", model, params

    return save


def rewrite(folder, change):
    """Replaces the tensors of a folder by what `change` makes of them."""
    file = folder / "model.safetensors"
    tensors = {name: array.copy() for name, array in load_file(file).items()}
    file.unlink()
    save_file(change(tensors), file)


def assert_equal(got, want):
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert one.dtype == jnp.float32
        np.testing.assert_array_equal(one, other)


def refused(folder, **options):
    with pytest.raises(RecipeError) as error:
        load_pretrained(folder, **options)
    return [str(fault) for fault in error.value.faults]


@pytest.mark.parametrize("config", [CONFIG, GPT2], ids=["llama", "gpt2"])
def test_what_is_saved_is_loaded(saved, config):
    folder, model, params = saved(config)
    again, loaded = load_pretrained(folder, remat=True)
    assert again.config == model.config
    assert again.remat
    assert_equal(loaded, params)
    written = json.loads((folder / "config.json").read_text())
    assert written["dtype"] == "float32" and "torch_dtype" not in written
    assert sorted(file.name for file in folder.iterdir()) == ["config.json", "model.safetensors"]


def test_the_vocabulary_of_the_tokenizer_is_saved(saved):
    without = {name: value for name, value in CONFIG.items() if name != "vocab_size"}
    model = build(without, vocab_size=20)
    folder, _, params = saved()
    save_pretrained(folder, model, params)
    assert load_pretrained(folder)[0].config.vocab_size == 20


def test_a_save_replaces_an_older_one(saved):
    folder, model, params = saved()
    other = jax.tree.map(lambda leaf: leaf + 1, params)
    before = weights_sha256(folder)
    save_pretrained(folder, model, other)
    assert_equal(load_pretrained(folder)[1], other)
    assert weights_sha256(folder) != before
    save_pretrained(folder, model, params)
    assert weights_sha256(folder) == before


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_narrow_weights_become_float32(saved, dtype):
    folder, _, params = saved()
    rewrite(folder, lambda tensors: {name: a.astype(dtype) for name, a in tensors.items()})
    narrow = jax.tree.map(lambda leaf: np.asarray(leaf).astype(dtype).astype(np.float32), params)
    assert_equal(load_pretrained(folder)[1], narrow)
    assert (np.asarray(narrow["lm_head"]["weight"]) != params["lm_head"]["weight"]).any()


def sharded(folder):
    """Splits a folder's tensors over two files with an index."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    files: dict[str, dict[str, np.ndarray]] = {"a.safetensors": {}, "b.safetensors": {}}
    for i, name in enumerate(sorted(tensors)):
        files[sorted(files)[i % 2]][name] = tensors[name]
    for file, part in files.items():
        save_file(part, folder / file)
    index = {"weight_map": {name: file for file, part in files.items() for name in part}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def test_shards_are_read_by_their_index(saved):
    folder, _, params = saved()
    whole = weights_sha256(folder)
    assert_equal(load_pretrained(sharded(folder))[1], params)
    assert weights_sha256(folder) != whole


def test_a_missing_and_a_truncated_shard_are_reported_together(saved):
    folder = sharded(saved()[0])
    (folder / "a.safetensors").unlink()
    content = (folder / "b.safetensors").read_bytes()
    (folder / "b.safetensors").write_bytes(content[:-5])
    with pytest.raises(RecipeError) as error:
        load_pretrained(folder)
    missing, truncated = error.value.faults
    damaged = "is truncated, damaged or missing: "
    assert missing.problem.startswith(f"a.safetensors {damaged}No such file")
    assert truncated.problem.startswith(f"b.safetensors {damaged}")
    assert truncated.problem.endswith("metadata, file not fully covered")
    assert {fault.cure for fault in error.value.faults} == {"fetch it again"}


@pytest.mark.parametrize(
    "index", ["", "{}", '{"weight_map": {"x": "../a.safetensors"}}', '{"weight_map": {"x": 1}}']
)
def test_an_index_that_is_none_is_refused(saved, index):
    folder = sharded(saved()[0])
    (folder / "model.safetensors.index.json").write_text(index)
    (fault,) = refused(folder)
    assert "model.safetensors.index.json is no index of safetensors files: " in fault


def test_all_names_that_are_wrong_are_reported_together(saved):
    folder, _, _ = saved()

    def change(tensors):
        for layer in (0, 2):
            del tensors[f"model.layers.{layer}.mlp.up_proj.weight"]
            tensors[f"model.layers.{layer}.mlp.router.weight"] = np.zeros(1, np.float32)
        tensors["extra"] = np.zeros(1, np.float32)
        tensors["model.norm.weight"] = np.zeros(9, np.float32)
        tensors["lm_head.weight"] = np.zeros((20, 8), np.int8)
        tensors["norm.weight"] = np.zeros(8, np.float32)
        return tensors

    rewrite(folder, change)
    with pytest.raises(RecipeError) as error:
        load_pretrained(folder)
    assert [fault.problem for fault in error.value.faults] == [
        "lacks model.layers.{0,2}.mlp.up_proj.weight",
        "has, though the model hasn't, extra, model.layers.{0,2}.mlp.router.weight",
        "has two spellings of norm.weight",
        "has other shapes than its config: model.norm.weight [9], not [8]",
        "holds lm_head.weight as I8; must be one of F32, F16, BF16",
    ]
    cures = {fault.cure for fault in error.value.faults}
    assert cures == {"take weights that belong to its config.json"}
    assert {fault.value for fault in error.value.faults} == {str(folder)}


def test_hub_files_of_gpt2_without_prefix_and_with_buffers_are_read(saved):
    folder, model, params = saved(GPT2)

    def change(tensors):
        tensors = {name.removeprefix("transformer."): array for name, array in tensors.items()}
        assert "wte.weight" in tensors
        masks = {f"h.{i}.attn.bias": np.zeros((1, 1, 4, 4), np.float32) for i in range(2)}
        return {**tensors, **masks, "lm_head.weight": tensors["wte.weight"]}

    rewrite(folder, change)
    assert_equal(load_pretrained(folder)[1], params)
    rewrite(folder, lambda tensors: {**tensors, "lm_head.weight": tensors["wte.weight"] + 1})
    (fault,) = refused(folder)
    assert "has a lm_head.weight that isn't its embedding, though tie_word_emb" in fault


def test_a_tied_embedding_may_be_saved_under_the_head_s_name_alone(saved):
    folder, _, params = saved(GPT2)

    def change(tensors):
        (name,) = (name for name in tensors if name.endswith("wte.weight"))
        return {"lm_head.weight": tensors.pop(name), **tensors}

    rewrite(folder, change)
    assert_equal(load_pretrained(folder)[1], params)


def test_special_tokens_are_those_of_the_config_else_the_given_ones(saved):
    folder, model, params = saved()
    save_pretrained(folder, model, params, {"eos_token_id": 7, "bos_token_id": None})
    config = json.loads((folder / "config.json").read_text())
    assert (config["eos_token_id"], config["bos_token_id"]) == (7, None)
    model = load_pretrained(folder)[0]
    save_pretrained(folder, model, params, {"eos_token_id": 8})
    assert json.loads((folder / "config.json").read_text())["eos_token_id"] == 7


def test_a_pickle_is_refused_with_the_line_that_converts_it(saved):
    folder, _, _ = saved()
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(RecipeError) as error:
        load_pretrained(folder)
    (fault,) = error.value.faults
    assert fault.problem == (
        "holds its weights as pytorch_model.bin, a pickle, which runs code when it is read"
    )
    assert fault.cure == (
        "if you trust it, convert it where torch is installed: "
        f'python -c "from transformers import AutoModelForCausalLM as M; '
        f"M.from_pretrained('{folder}').save_pretrained('{folder}-safetensors')\""
    )
    (folder / "pytorch_model.bin").unlink()
    (fault,) = refused(folder)
    assert "holds neither model.safetensors nor model.safetensors.index.json" in fault


@pytest.mark.parametrize("method", ["mxfp4", "fp8"])
def test_weights_of_a_few_bits_are_refused_with_the_line_that_converts_them(saved, method):
    folder, _, _ = saved()
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": method, "modules_to_not_convert": ["lm_head"]}
    (folder / "config.json").write_text(json.dumps(config))
    (fault,) = refused(folder)
    cures = {
        "mxfp4": "convert it where torch is installed: "
        'python -c "from transformers import AutoModelForCausalLM as M, Mxfp4Config as Q; '
        f"M.from_pretrained('{folder}', dtype='bfloat16', quantization_config=Q(dequantize=True))"
        f".save_pretrained('{folder}-bf16')\"",
        "fp8": "take the model's weights in bfloat16 or wider",
    }
    assert fault == (
        f"model.pretrained.config.quantization_config.quant_method = '{method}': is of weights of "
        f"a few bits, which have no derivatives; must be left out; {cures[method]}"
    )


def test_a_config_that_is_wrong_is_refused_before_the_weights_are_read(saved):
    folder, _, _ = saved()
    (folder / "model.safetensors").write_bytes(b"")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "rope_scaling": {"type": "su"}}))
    (fault,) = refused(folder, vocab_size=21)[:1]
    assert fault.startswith("model.pretrained.config.vocab_size = 20: must be at least the token")
    assert refused(folder)[0].startswith(
        "model.pretrained.config.rope_scaling.rope_type = 'su': unknown rotary embedding"
    )
    (folder / "config.json").write_text("[]")
    assert "can't be read as a model's config: not a mapping" in refused(folder)[0]
    (folder / "config.json").unlink()
    assert "can't be read as a model's config: isn't there" in refused(folder)[0]


def test_a_folder_that_is_none_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    assert "is a file; write the folder" in refused(tmp_path / "file")[0]
    missing = tmp_path / "missing"
    assert "no such folder; write an existing folder, or OWNER/NAME" in refused(missing)[0]
    (fault,) = refused(tmp_path, revision="main")
    assert fault == (
        "model.revision = 'main': is of models on a hub, and model.pretrained is a folder; "
        "take it out"
    )


def test_a_hub_is_asked_for_json_and_safetensors_only(saved, monkeypatch):
    folder, _, params = saved()
    asked = {}

    def download(repo_id, **options):
        asked.update(options, repo_id=repo_id)
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert_equal(load_pretrained("owner/name", revision="v1")[1], params)
    assert asked == {
        "repo_id": "owner/name",
        "revision": "v1",
        "allow_patterns": ["*.json", "*.safetensors"],
        "ignore_patterns": ["*/*"],
    }


def test_offline_the_cache_is_looked_at_and_nothing_else(tmp_path, monkeypatch):
    def unreachable(*args, **kwargs):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("socket.socket.connect", unreachable)
    (fault,) = refused("owner/name-that-is-not-here")
    assert fault.startswith(
        "model.pretrained = 'owner/name-that-is-not-here': neither a folder here nor to be had "
        "from the hub (HF_HUB_OFFLINE is set): "
    )
    assert fault.endswith("; correct it, or download the model and write its folder")
