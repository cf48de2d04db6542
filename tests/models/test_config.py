"""What a config may say, and what is said of one that is wrong."""

import dataclasses
import json
import warnings

import pytest

from metatune.models import build, config_faults

CONFIG = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1, "high_freq_factor": 4}


def said(changes, vocab_size=259):
    """What is said of the config above with changes."""
    return [str(fault) for fault in config_faults({**CONFIG, **changes}, vocab_size=vocab_size)]


def test_the_smallest_config_has_the_defaults_of_transformers():
    config = build(CONFIG, vocab_size=259).config
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of importing third-party packages
        import transformers
    theirs = transformers.LlamaConfig(**CONFIG, vocab_size=259).to_dict()
    ours = dataclasses.asdict(config)
    rope = ours.pop("rope")
    assert ours == {name: theirs[name] for name in ours}
    assert theirs["rope_parameters"].items() <= rope.items()


def test_all_that_transformers_can_write_is_read():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import transformers
    theirs = transformers.LlamaConfig(**CONFIG, vocab_size=259)
    for text in (theirs.to_json_string(), theirs.to_json_string(use_diff=False)):
        assert build(json.loads(text), vocab_size=259) == build(CONFIG, vocab_size=259)


def test_a_file_of_transformers_4_is_read():
    file = {
        **CONFIG,
        "_name_or_path": "",
        "architectures": ["LlamaForCausalLM"],
        "attention_dropout": 0.0,
        "bos_token_id": 0,
        "eos_token_id": [0, 1],
        "head_dim": None,
        "is_llama_config": True,
        "pretraining_tp": 1,
        "rope_interleaved": False,
        "rope_scaling": None,
        "rope_theta": 10000.0,
        "torch_dtype": "bfloat16",
        "transformers.js_config": {"dtype": "q4"},
        "transformers_version": "4.42.3",
        "use_cache": True,
    }
    assert build(file, vocab_size=259) == build(CONFIG, vocab_size=259)


def test_the_vocabulary_may_be_larger_than_the_tokenizers():
    assert build(CONFIG, vocab_size=259).config.vocab_size == 259
    assert build({**CONFIG, "vocab_size": 320}, vocab_size=259).config.vocab_size == 320


def test_llama3_reaches_from_the_longest_sequence_where_it_does_not_say():
    config = {**CONFIG, "rope_scaling": LLAMA3, "max_position_embeddings": 512}
    assert build(config, vocab_size=259).config.rope.original_max_position_embeddings == 512


SIZE = "must be a whole number of 1 or above"
DEFAULT = "correct it, or leave it out for the default"
ROPE = "model.config.rope_parameters"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"model_type": "lama"}, "model.config.model_type = 'lama': unknown model family; "
         "did you mean llama? (allowed: llama)"),
        ({"model_type": ["llama"]}, "model.config.model_type = ['llama']: unknown model family; "
         "did you mean llama? (allowed: llama)"),
        ({"hidden_size": None}, f"model.config.hidden_size: missing; write {SIZE[8:]}"),
        ({"hidden_size": 64.0}, f"model.config.hidden_size = 64.0: {SIZE}; write {SIZE[8:]}"),
        ({"hidden_size": True}, f"model.config.hidden_size = True: {SIZE}; write {SIZE[8:]}"),
        ({"num_key_value_heads": 0}, f"model.config.num_key_value_heads = 0: {SIZE}; {DEFAULT}"),
        ({"rms_norm_eps": "small"}, "model.config.rms_norm_eps = 'small': must be a number above "
         f"0; {DEFAULT}"),
        ({"initializer_range": float("inf")}, "model.config.initializer_range = inf: must be a "
         f"number above 0; {DEFAULT}"),
        ({"mlp_bias": "no"}, f"model.config.mlp_bias = 'no': must be true or false; {DEFAULT}"),
        ({"hidden_act": "gelu"}, "model.config.hidden_act = 'gelu': must be 'silu', the only one "
         f"that is supported; {DEFAULT}"),
        ({"attention_dropout": 0.1}, "model.config.attention_dropout = 0.1: must be 0, the only "
         f"one that is supported; {DEFAULT}"),
        ({"num_attention_heads": 3}, "model.config.hidden_size = 64: must be a multiple of "
         "num_attention_heads, 3; change one of the two"),
        ({"num_key_value_heads": 3}, "model.config.num_key_value_heads = 3: must divide "
         "num_attention_heads, 4; change one of the two, or leave it out for as many"),
        ({"head_dim": 5}, "model.config.head_dim = 5: must be even, because rotary embeddings "
         "turn pairs of features; write an even one, or change hidden_size or "
         "num_attention_heads, whose ratio it is"),
        ({"vocab_size": 256}, "model.config.vocab_size = 256: must be at least the tokenizer's "
         "vocabulary, 259; raise it, or leave it out for the tokenizer's"),
        ({"rope_scaling": "llama3"}, "model.config.rope_scaling = 'llama3': must be a mapping "
         "with rope_type; leave it out for the default"),
        ({"rope_scaling": {"type": "yarn", "factor": 4}}, "model.config.rope_scaling.rope_type = "
         "'yarn': unknown rotary embedding; allowed: default, linear, llama3"),
        ({"rope_parameters": {"rope_type": "linear"}}, f"{ROPE}.factor: missing; write a number "
         "of 1 or above"),
        ({"rope_parameters": {"rope_type": "linear", "factor": 0.5}}, f"{ROPE}.factor = 0.5: "
         "must be a number of 1 or above; write a number of 1 or above"),
        ({"rope_parameters": {**LLAMA3, "high_freq_factor": 1}}, f"{ROPE}.high_freq_factor = 1: "
         "must be above low_freq_factor, 1; change one of the two"),
        ({"rope_parameters": {"factor": 2}}, f"{ROPE}.factor = 2: unknown key; "
         "allowed: rope_theta"),
        ({"rope_parameters": {"rope_theta": 5.0}, "rope_theta": 7.0}, "model.config.rope_theta = "
         f"7.0: contradicts {ROPE}.rope_theta, 5.0; leave out one of the two"),
        ({"rope_theta": -1}, "model.config.rope_theta = -1: must be a number above 0; "
         f"{DEFAULT}"),
        ({"rope_parameters": {}, "rope_scaling": {"type": "linear"}}, "model.config.rope_scaling "
         "= {'type': 'linear'}: stands beside rope_parameters, which is its newer name; "
         "leave out one of the two"),
    ],
)  # fmt: skip
def test_a_fault_says_what_is_wrong_and_what_to_do(changes, expected):
    assert said(changes) == [expected]


def test_a_family_must_be_named():
    config = {name: value for name, value in CONFIG.items() if name != "model_type"}
    (fault,) = config_faults(config, vocab_size=259)
    assert str(fault) == "model.config.model_type: unknown model family; allowed: llama"


def test_a_misspelt_field_is_reported_once():
    config = {"hidden_sizes" if name == "hidden_size" else name: CONFIG[name] for name in CONFIG}
    (fault,) = config_faults(config, vocab_size=259)
    assert str(fault).startswith(
        "model.config.hidden_sizes = 64: unknown key; did you mean hidden_size? "
        "(allowed: hidden_size, intermediate_size, num_hidden_layers, "
    )


def test_a_quantized_model_is_refused():
    (fault,) = said({"quantization_config": {"bits": 4}})
    assert fault.startswith("model.config.quantization_config = {'bits': 4}: unknown key; ")


def test_all_faults_are_reported_together():
    wrong = {
        "hidden_size": 66,
        "head_dim": 3,
        "mlp_bias": 1,
        "intermediate_size": None,
        "rope_theta": 0,
        "vocab_size": 7,
        "sliding_window": 4,
    }
    paths = [fault.path for fault in config_faults({**CONFIG, **wrong}, vocab_size=259)]
    assert sorted(paths) == sorted(f"model.config.{name}" for name in wrong)
