"""What a config may say, and what is said of one that is wrong."""

import importlib
import inspect
import json
import re
import warnings

import pytest

from metatune.models import build, config_faults
from metatune.models.config import passed_over, transformers_fields
from metatune.models.families import FAMILIES
from metatune.models.rope import SCALINGS
from metatune.recipe.faults import ConfigWarning, RecipeError

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


def spelled(kind):
    """Small sizes that fit every family's defaults, in the spelling of one."""
    sizes = {
        "hidden_size": 256,
        "intermediate_size": 96,
        "num_hidden_layers": 7,
        "num_attention_heads": 32,
        "moe_intermediate_size": 80,
        "num_experts": 6,
        "num_experts_per_tok": 2,
    }
    family = FAMILIES[kind]
    return {
        "model_type": kind,
        **{family.spelled(name): sizes[name] for name in sizes if name in family.required},
    }


@pytest.fixture(scope="module")
def transformers():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of importing third-party packages
        import transformers
    return transformers


@pytest.mark.parametrize("kind", FAMILIES)
def test_defaults_are_those_of_transformers_and_all_it_writes_is_read(transformers, kind):
    config = spelled(kind)
    theirs = transformers.AutoConfig.for_model(**config, vocab_size=259)
    for text in (theirs.to_json_string(), theirs.to_json_string(use_diff=False)):
        assert build(json.loads(text)) == build(config, vocab_size=259)


FIELDS = {
    "llama": {"attention_bias": True, "mlp_bias": True, "head_dim": 6, "hidden_act": "gelu"},
    "smollm3": {"no_rope_layer_interval": 3, "use_sliding_window": True, "sliding_window": 4},
    "mistral": {"sliding_window": None, "num_key_value_heads": 4},
    "ministral3": {"sliding_window": 8, "num_key_value_heads": 4, "head_dim": 6},
    "qwen2": {"use_sliding_window": True, "max_window_layers": 3},
    "qwen3": {"attention_bias": True, "use_sliding_window": True, "max_window_layers": 0},
    "gemma": {"attention_bias": True, "num_key_value_heads": 4},
    "gemma2": {"final_logit_softcapping": None, "attn_logit_softcapping": None, "head_dim": 8},
    "gemma3_text": {"sliding_window_pattern": 2, "query_pre_attn_scalar": 9},
    "olmo2": {"attention_bias": True, "num_key_value_heads": 4},
    "olmo3": {"attention_bias": True, "sliding_window": 5},
    "granite": {
        "embedding_multiplier": 12.0,
        "attention_multiplier": 0.5,
        "residual_multiplier": 0.22,
        "logits_scaling": 8.0,
    },
    "phi3": {"num_key_value_heads": 4, "sliding_window": 5, "partial_rotary_factor": 0.5},
    "qwen3_moe": {
        "norm_topk_prob": True,
        "attention_bias": True,
        "use_sliding_window": True,
        "decoder_sparse_step": 2,
        "mlp_only_layers": [1],
    },
    "olmoe": {"norm_topk_prob": True, "attention_bias": True, "num_key_value_heads": 4},
    "gpt_oss": {
        "attention_bias": False,
        "head_dim": 8,
        "sliding_window": 5,
        "swiglu_alpha": 1.5,
        "swiglu_limit": 3.0,
        "layer_types": ["full_attention"] * 6 + ["sliding_attention"],
    },
    "gpt2": {"n_inner": 8, "scale_attn_weights": False, "tie_word_embeddings": False},
    "gpt_neox": {"use_parallel_residual": False, "attention_bias": False},
    "nanochat": {
        "attention_bias": True,
        "final_logit_softcapping": 30.0,
        "head_dim": 6,
        "hidden_act": "gelu",
        "num_key_value_heads": 4,
        "rms_norm_eps": 1e-5,
    },
}


@pytest.mark.parametrize("kind", FAMILIES)
def test_fields_survive_a_round_through_transformers(transformers, kind):
    config = {**spelled(kind), **FIELDS[kind]}
    theirs = transformers.AutoConfig.for_model(**config, vocab_size=259)
    ours = build(config, vocab_size=259)
    assert build(json.loads(theirs.to_json_string())) == ours
    for name in FIELDS[kind]:
        without = {key: value for key, value in config.items() if key != name}
        assert build(without, vocab_size=259) != ours, name


OLDER = {
    "llama": ({"rope_theta": 50.0}, {"rope_parameters": {"rope_theta": 50.0}}),
    "llama, linear": (
        {"rope_theta": 5e3, "rope_scaling": {"type": "linear", "factor": 3.0}},
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 5e3, "factor": 3.0}},
    ),
    "llama, llama3": (
        {"rope_theta": 5e5, "rope_scaling": {**LLAMA3, "original_max_position_embeddings": 64}},
        {
            "rope_parameters": {
                **LLAMA3,
                "original_max_position_embeddings": 64,
                "rope_theta": 5e5,
            }
        },
    ),
    "llama, yarn": (
        {"rope_theta": 5e3, "rope_scaling": {"type": "yarn", "factor": 3.0, "beta_slow": None}},
        {
            "max_position_embeddings": 2048,
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 5e3,
                "factor": 3.0,
                "original_max_position_embeddings": 2048,
            },
        },
    ),
    "llama, longrope": (
        {"rope_scaling": {"type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2] * 4}},
        {
            "rope_parameters": {
                "rope_type": "longrope",
                "factor": 1.0,
                "short_factor": [1.0] * 4,
                "long_factor": [2.0] * 4,
            }
        },
    ),
    "olmo3": (
        {
            "rope_theta": 5e5,
            "rope_scaling": {
                "rope_type": "yarn",
                "factor": 8.0,
                "original_max_position_embeddings": 8192,
                "attention_factor": 1.2,
            },
        },
        {
            "rope_parameters": {
                "full_attention": {
                    "rope_type": "yarn",
                    "rope_theta": 5e5,
                    "factor": 8.0,
                    "original_max_position_embeddings": 8192,
                    "attention_factor": 1.2,
                }
            }
        },
    ),
    "phi3": (
        {
            "partial_rotary_factor": 0.5,
            "original_max_position_embeddings": 16,
            "rope_scaling": {
                "type": "longrope",
                "short_factor": [1.0] * 2,
                "long_factor": [2.0] * 2,
            },
        },
        {
            "original_max_position_embeddings": 16,
            "rope_parameters": {
                "rope_type": "longrope",
                "partial_rotary_factor": 0.5,
                "factor": 256,
                "short_factor": [1.0] * 2,
                "long_factor": [2.0] * 2,
            },
        },
    ),
    "gpt_neox": (
        {"rotary_pct": 0.5, "rotary_emb_base": 500.0},
        {"rope_parameters": {"partial_rotary_factor": 0.5, "rope_theta": 500.0}},
    ),
    "gemma3_text": (
        {
            "rope_theta": 5e4,
            "rope_local_base_freq": 300.0,
            "rope_scaling": {"rope_type": "linear", "factor": 8.0},
        },
        {
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 5e4},
                "sliding_attention": {"rope_type": "default", "rope_theta": 300.0},
            }
        },
    ),
}


@pytest.mark.parametrize("name", OLDER)
def test_rope_in_the_spelling_of_transformers_4_is_the_same_model(transformers, name):
    kind = name.partition(",")[0]
    older, newer = ({**spelled(kind), **fields} for fields in OLDER[name])
    theirs = transformers.AutoConfig.for_model(**older, vocab_size=259)
    ours = build(older, vocab_size=259)
    assert ours == build(newer, vocab_size=259) == build(json.loads(theirs.to_json_string()))
    assert ours != build(spelled(kind), vocab_size=259)


FILES = {
    "SmolLM2": (
        CONFIG,
        {
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
        },
    ),
    "gpt2": (
        spelled("gpt2"),
        {
            "_num_labels": 1,
            "architectures": ["GPT2LMHeadModel"],
            "n_special": 0,
            "predict_special_tokens": True,
            "attn_pdrop": 0.1,
            "embd_pdrop": 0.1,
            "n_ctx": 1024,
            "resid_pdrop": 0.1,
            "summary_activation": None,
            "summary_first_dropout": 0.1,
            "summary_proj_to_labels": True,
            "summary_type": "cls_index",
            "summary_use_proj": True,
            "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}},
        },
    ),
    "Qwen2.5": (spelled("qwen2"), {"use_mrope": False, "sliding_window": 32768}),
    "Gemma": (spelled("gemma"), {"hidden_act": "gelu", "hidden_activation": None}),
    "Gemma 2": (
        spelled("gemma2"),
        {"hidden_act": "gelu_pytorch_tanh", "cache_implementation": "hybrid"},
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_files_of_transformers_4_are_read(name):
    config, more = FILES[name]
    assert build({**config, **more}, vocab_size=259) == build(config, vocab_size=259)


def test_the_vocabulary_may_be_larger_than_the_tokenizers():
    assert build(CONFIG, vocab_size=259).config.vocab_size == 259
    assert build({**CONFIG, "vocab_size": 320}, vocab_size=259).config.vocab_size == 320


def test_llama3_reaches_from_the_longest_sequence_where_it_does_not_say():
    config = {**CONFIG, "rope_scaling": LLAMA3, "max_position_embeddings": 512}
    rope = build(config, vocab_size=259).config.layers[0].rope
    assert rope is not None and rope.original_max_position_embeddings == 512


KINDS = ", ".join(FAMILIES)
SIZE = "must be a whole number from 1 to 67,108,864"
LAYERS = "must be a whole number from 1 to 10,000"
DEFAULT = "correct it, or leave it out for the default"
ROPE = "model.config.rope_parameters"
ROPES = ", ".join(SCALINGS)
LONGROPE = {"rope_type": "longrope", "short_factor": [1.0] * 8, "long_factor": [2.0] * 8}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"model_type": "lama"}, "model.config.model_type = 'lama': unknown model family; "
         f"did you mean llama? (allowed: {KINDS})"),
        ({"model_type": ["llama"]}, "model.config.model_type = ['llama']: unknown model family; "
         f"did you mean llama? (allowed: {KINDS})"),
        ({"hidden_size": None}, f"model.config.hidden_size: missing; write {SIZE[8:]}"),
        ({"hidden_size": 64.0}, f"model.config.hidden_size = 64.0: {SIZE}; write {SIZE[8:]}"),
        ({"hidden_size": True}, f"model.config.hidden_size = True: {SIZE}; write {SIZE[8:]}"),
        ({"num_key_value_heads": 0}, f"model.config.num_key_value_heads = 0: {SIZE}; {DEFAULT}"),
        ({"rms_norm_eps": "small"}, "model.config.rms_norm_eps = 'small': must be a number above "
         f"0; {DEFAULT}"),
        ({"initializer_range": float("inf")}, "model.config.initializer_range = inf: must be a "
         f"number above 0; {DEFAULT}"),
        ({"mlp_bias": "no"}, f"model.config.mlp_bias = 'no': must be true or false; {DEFAULT}"),
        ({"hidden_act": "mish"}, "model.config.hidden_act = 'mish': must be gelu or gelu_new or "
         f"gelu_pytorch_tanh or relu or relu2 or silu; {DEFAULT}"),
        ({"attention_dropout": 0.1}, "model.config.attention_dropout = 0.1: must be 0, the only "
         f"one that is supported; {DEFAULT}"),
        ({"num_attention_heads": 3}, "model.config.hidden_size = 64: must be a multiple of "
         "num_attention_heads, 3; change one of the two"),
        ({"num_key_value_heads": 3}, "model.config.num_key_value_heads = 3: must divide "
         "num_attention_heads, 4; change one of the two"),
        ({"head_dim": 5}, "model.config.head_dim = 5: must be even, because rotary embeddings "
         "turn pairs of features; change it, or the sizes whose ratio it is"),
        ({"vocab_size": 256}, "model.config.vocab_size = 256: must be at least the tokenizer's "
         "vocabulary, 259; raise it or leave it out, or take the tokenizer that "
         "belongs to the model"),
        ({"rope_scaling": "llama3"}, "model.config.rope_scaling = 'llama3': must be a mapping "
         "with rope_type; leave it out for the default"),
        ({"rope_scaling": {"type": "proportional"}}, "model.config.rope_scaling.rope_type = "
         f"'proportional': unknown rotary embedding; allowed: {ROPES}"),
        ({"rope_scaling": {"type": "yarn", "factor": 4, "rope_theta": 1}}, "model.config."
         "rope_scaling.rope_theta = 1: must be above 1, whose logarithm yarn divides by; raise it"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 4, "beta_slow": 40}}, f"{ROPE}."
         "beta_fast = 32.0: must be above beta_slow, 40; change one of the two"),
        ({"rope_parameters": {**LONGROPE, "original_max_position_embeddings": 1}}, f"{ROPE}."
         "original_max_position_embeddings = 1: must be above 1, whose logarithm longrope divides "
         "by; raise it"),
        ({"rope_parameters": {**LONGROPE, "short_factor": [1.0]}}, f"{ROPE}.short_factor = [1.0]: "
         "has 1 entries; must have one for each of 8 pairs; take those that belong to the model"),
        ({"rope_parameters": {**LONGROPE, "long_factor": [0] * 8}}, f"{ROPE}.long_factor = "
         "[0, 0, 0, 0, 0, 0, 0, 0]: must be a list of numbers above 0; write a list of numbers "
         "above 0"),
        ({"head_dim": 2, "rope_parameters": {"rope_type": "dynamic", "factor": 2.0}},
         "model.config.head_dim = 2: must be above 2, because the dynamic rotary embedding spreads "
         "over pairs; change it, or the sizes whose ratio it is"),
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
        ({"rope_theta": float("nan"), "rope_scaling": {"type": "linear", "factor": 2.0}},
         f"model.config.rope_theta = nan: must be a number above 0; {DEFAULT}"),
        ({"rope_scaling": {**LONGROPE, "short_factor": [1.0]}}, "model.config.rope_scaling."
         "short_factor = [1.0]: has 1 entries; must have one for each of 8 pairs; take those that "
         "belong to the model"),
        ({"rope_parameters": {"rope_theta": 5.0}, "rope_scaling": {"type": "linear"}},
         "model.config.rope_scaling = {'type': 'linear'}: stands beside rope_parameters, which is "
         "its newer name: rope_theta would be 10000.0 by it and 5.0 by rope_parameters; leave out "
         "one of the two"),
    ],
)  # fmt: skip
def test_a_fault_says_what_is_wrong_and_what_to_do(changes, expected):
    assert said(changes) == [expected]


@pytest.mark.parametrize(
    ("kind", "changes", "expected"),
    [
        ("qwen2", {"num_key_value_heads": 5}, "num_key_value_heads = 5: must divide "
         "num_attention_heads, 32; change one of the two"),
        ("qwen2", {"num_attention_heads": 4}, "num_key_value_heads: is 32 by default, which must "
         "divide num_attention_heads, 4; write it, e.g. 4"),
        ("qwen3", {"layer_types": ["full_attention"]}, "layer_types = ['full_attention']: has 1 "
         "entries; must have one for each of 7 layers; correct it, or leave it out"),
        ("qwen3", {"layer_types": ["linear_attention"] * 7}, "layer_types = ['linear_attention', "
         "'linear_attention'… 'linear_attention', 'linear_attention']: must be a list of "
         f"full_attention and sliding_attention; {DEFAULT}"),
        ("qwen2", {"layer_types": ["sliding_attention"] * 7}, "sliding_window = None: is not in "
         "use, but layer_types has sliding_attention; write a number (with use_sliding_window "
         "where there is one), or change layer_types"),
        ("qwen2", {"use_mrope": True}, "use_mrope = True: must be False, the only one that is "
         f"supported; {DEFAULT}"),
        ("mistral", {"final_logit_softcapping": 3.0}, "final_logit_softcapping = 3.0: unknown key; "
         "allowed: "),
        ("gemma2", {"use_bidirectional_attention": True}, "use_bidirectional_attention = True: "
         f"must be False, the only one that is supported; {DEFAULT}"),
        ("gemma2", {"hidden_act": "relu"}, "hidden_act = 'relu': must be 'gelu_pytorch_tanh', "
         f"the only one that is supported; {DEFAULT}"),
        ("gemma3_text", {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping = 50.0: must be "
         f"null, the only one that is supported; {DEFAULT}"),
        ("gemma3_text", {"rope_parameters": {"rope_type": "linear"}}, "rope_parameters.rope_type "
         "= 'linear': unknown type of layer; allowed: full_attention, sliding_attention"),
        ("gemma3_text", {"rope_parameters": {"full_attention": {"rope_type": "su"}}},
         "rope_parameters.full_attention.rope_type = 'su': unknown rotary embedding; allowed: "
         f"{ROPES}"),
        ("gemma3_text", {"rope_parameters": {"full_attention": {"rope_type": "yarn", "factor": 2,
         "truncate": False}}}, "rope_parameters.full_attention.truncate = False: must be True, the "
         f"only one that is supported; {DEFAULT}"),
        ("ministral3", {"rope_parameters": {"rope_type": "default"}},
         "rope_parameters.llama_4_scaling_beta: missing; write a number of 0 or above"),
        ("gemma3_text", {"rope_local_base_freq": 0}, "rope_local_base_freq = 0: must be a number "
         f"above 0; {DEFAULT}"),
        ("gemma3_text", {"rope_scaling": {"rope_type": "ntk"}}, "rope_scaling.rope_type = "
         f"'ntk': unknown rotary embedding; allowed: {ROPES}"),
        ("olmo3", {"rope_theta": 1e4}, "rope_theta = 10000.0: was of all layers in transformers 4 "
         "and is of the full ones in 5, where those with windows have 500000; write "
         "rope_parameters with full_attention and sliding_attention, and rope_theta in each"),
        ("phi3", {"rope_parameters": {**LONGROPE, "original_max_position_embeddings": 2048}},
         "rope_parameters.original_max_position_embeddings = 2048: is not read there: without one "
         "beside rope_parameters, it is 4,096; write original_max_position_embeddings beside "
         "rope_parameters"),
        ("phi3", {"rope_scaling": {"type": "yarn", "factor": 4}}, "rope_scaling.rope_type = "
         "'yarn': unknown rotary embedding; allowed: default, longrope"),
        ("qwen3_moe", {"mlp_only_layers": [-1]}, "mlp_only_layers = [-1]: must be a list of whole "
         f"numbers of 0 or above; {DEFAULT}"),
        ("qwen3_moe", {"num_local_experts": 7}, "num_local_experts = 7: contradicts "
         "model.config.num_experts, 6; leave out one of the two"),
        ("olmoe", {"num_experts_per_tok": 7}, "num_experts_per_tok = 7: must be at most "
         "num_experts, 6; change one of the two"),
        ("gpt_oss", {"num_experts_per_tok": 7}, "num_experts_per_tok = 7: must be at most "
         "num_local_experts, 6; change one of the two"),
        ("gpt_oss", {"hidden_act": "relu"}, "hidden_act = 'relu': must be 'silu', the only one "
         f"that is supported; {DEFAULT}"),
        ("olmoe", {"output_router_logits": True}, "output_router_logits = True: must be False, "
         f"the only one that is supported; {DEFAULT}"),
        ("nanochat", {"rope_parameters": {"partial_rotary_factor": 0.5}},
         "rope_parameters.partial_rotary_factor = 0.5: unknown key; allowed: rope_theta"),
        ("gpt2", {"n_embd": 100}, "n_embd = 100: must be a multiple of n_head, 32; change one of "
         "the two"),
        ("gpt2", {"n_layer": None}, "n_layer: missing; write a whole number from 1 to 10,000"),
        ("gpt2", {"reorder_and_upcast_attn": True}, "reorder_and_upcast_attn = True: must be "
         f"False, the only one that is supported; {DEFAULT}"),
        ("gpt_neox", {"rotary_pct": 0.4}, "head_dim = 8: 0.4 of it must be even, because rotary "
         "embeddings turn pairs of features; change it, or the sizes whose ratio it is"),
        ("gpt_neox", {"rotary_pct": 1.5}, "rotary_pct = 1.5: must be a fraction above 0 up to 1; "
         f"{DEFAULT}"),
        ("gpt_neox", {"rotary_emb_base": 5.0, "rope_theta": 7.0}, "rope_theta = 7.0: contradicts "
         "model.config.rope_parameters.rope_theta, 5.0; leave out one of the two"),
    ],
)  # fmt: skip
def test_what_a_family_does_not_support_is_refused_by_name(kind, changes, expected):
    (fault,) = config_faults({**spelled(kind), **changes}, vocab_size=259)
    assert str(fault).startswith(f"model.config.{expected}")


def test_a_model_without_a_tokenizer_must_say_its_vocabulary():
    with pytest.raises(RecipeError) as refused:
        build(CONFIG)
    assert str(refused.value) == (
        "model: 1 fault\n  model.config.vocab_size: missing; "
        "write a whole number from 1 to 67,108,864"
    )


def test_a_family_must_be_named():
    config = {name: value for name, value in CONFIG.items() if name != "model_type"}
    (fault,) = config_faults(config, vocab_size=259)
    assert str(fault) == f"model.config.model_type: unknown model family; allowed: {KINDS}"


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


def test_what_nothing_reads_is_passed_over_with_one_warning():
    stamps = {"unsloth_fixed": True, "_attn_implementation_autoset": True, "unsloth_version": "1.0"}
    with pytest.warns(ConfigWarning) as warned:
        model = build({**CONFIG, **stamps}, vocab_size=259)
    assert model == build(CONFIG, vocab_size=259)
    (only,) = warned
    assert str(only.message) == (
        "fields of the llama model's config that neither transformers nor metatune reads, and that "
        "are passed over: unsloth_fixed, unsloth_version"
    )
    assert build({**CONFIG, "unsloth_fixed": None}, vocab_size=259) == model


def test_what_transformers_reads_and_this_does_not_is_refused(monkeypatch):
    """As of a transformers that is newer than the fields known here."""
    monkeypatch.setattr(
        "metatune.models.config.transformers_fields", lambda kind: frozenset({"swiglu_limit"})
    )
    (fault,) = said({"swiglu_limit": 7.0})
    assert fault.startswith("model.config.swiglu_limit = 7.0: unknown key; allowed: ")


@pytest.mark.parametrize("kind", FAMILIES)
def test_no_field_that_transformers_reads_is_passed_over(transformers, kind):
    """Neither what its config class has, nor what the code of the model asks the config for."""
    theirs = transformers.AutoConfig.for_model(kind)
    code = importlib.import_module(type(theirs).__module__.replace(".configuration_", ".modeling_"))
    source = inspect.getsource(code)
    asked = re.findall(r"\bconfig\.([a-z]\w*)|\bconfig, \"(\w+)\"", source)
    fields = {one or other for one, other in asked} | transformers_fields(kind)
    assert {"hidden_size", "use_cache"} <= fields
    own = spelled(kind)
    passed = passed_over({**dict.fromkeys(fields, 1), **own})
    # A method, and what models for images, or for classes, ask their own configs for.
    images = {"image_token_id", "image_token_index", "mm_tokens_per_image"}
    classes = {"classifier_dropout", "summary_last_dropout"}
    others = {"get_text_config", "text_config", "vision_config", *images, *classes}
    assert set(passed) <= others, passed


def test_all_faults_are_reported_together():
    wrong = {
        "head_dim": 3,
        "mlp_bias": 1,
        "intermediate_size": None,
        "vocab_size": 7,
        "sliding_window": 4,
    }
    paths = [fault.path for fault in config_faults({**CONFIG, **wrong}, vocab_size=259)]
    assert sorted(paths) == sorted(f"model.config.{name}" for name in wrong)
