"""A model's config: the fields of `config.json` that matter, checked."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from metatune.models import fields
from metatune.models.architecture import Architecture, Layer
from metatune.models.families import FAMILIES
from metatune.models.family import Family
from metatune.models.fields import SLIDING, only
from metatune.models.rope import Rope, rotated_features
from metatune.recipe.faults import ABSENT, Fault, nearest, unknown

PATH = "model.config"
PER_LAYER = ("layer_types", "no_rope_layers")
"""Fields with an entry for each layer."""
FIXED = {
    "add_cross_attention": only(False),
    "chunk_size_feed_forward": only(0),
    "is_encoder_decoder": only(False),
    "pruned_heads": only({}),
}
"""Fields of every family that would change logits at any other value."""
WITHOUT_EFFECT = frozenset(
    "_attn_implementation _attn_implementation_autoset _name_or_path _num_labels architectures "
    "attn_implementation bad_words_ids begin_suppress_tokens bos_token_id cache_implementation "
    "cross_attention_hidden_size decoder_start_token_id diversity_penalty do_sample dtype "
    "early_stopping encoder_no_repeat_ngram_size eos_token_id exponential_decay_length_penalty "
    "finetuning_task forced_bos_token_id forced_eos_token_id gradient_checkpointing id2label "
    "is_decoder label2id length_penalty max_length min_length model_type no_repeat_ngram_size "
    "num_beam_groups num_beams num_labels num_return_sequences output_attentions "
    "output_hidden_states output_scores pad_token_id prefix problem_type remove_invalid_values "
    "repetition_penalty return_dict return_dict_in_generate sep_token_id suppress_tokens "
    "task_specific_params temperature tf_legacy_loss tie_encoder_decoder tokenizer_class top_k "
    "top_p torch_dtype torchscript transformers.js_config transformers_version typical_p "
    "use_bfloat16 use_cache".split()
)
"""Fields of real files that change neither logits nor initialisation."""
READ_ON_LOADING = frozenset({"compression_config", "per_layer_config", "quantization_config"})
"""What transformers reads of every model, and would change its weights or its layers."""


def read(
    config: Mapping[str, Any], *, vocab_size: int | None, path: str = PATH
) -> Architecture | tuple[Fault, ...]:
    """Reads a config.

    Args:
        config: fields of `config.json`, in the spelling of transformers 4 or 5.
        vocab_size: the tokenizer's, for a config that has none; None for no tokenizer.
        path: dotted path of the config, for faults.

    Returns:
        The architecture, or all its faults.
    """
    kind = config.get("model_type", ABSENT)
    if kind not in list(FAMILIES):  # a list, because what was received may not be hashable
        return (unknown(f"{path}.model_type", kind, "model family", kind, list(FAMILIES)),)
    family = FAMILIES[kind]
    config, faults = _respelled(family, path, config)
    given = {name: value for name, value in config.items() if value is not None}
    rules = {family.spelled(name): field.rule for name, field in family.fields.items()}
    ignored = {*WITHOUT_EFFECT, *family.without_effect, *family.rope_fields}
    required = [family.spelled(name) for name in family.required]
    if vocab_size is None:
        required.append(family.spelled("vocab_size"))
    known = {**rules, **FIXED, **family.fixed}
    ignored |= set(passed_over(config))
    faults += fields.faults(path, given, known, required, ignored)
    values = _values(family, config, vocab_size)
    faults += _relations(family, path, given, values, vocab_size)
    context = values.get("max_position_embeddings", 0)
    ropes = family.ropes(path, given, context)
    if isinstance(ropes, tuple):
        return (*faults, *ropes)
    section = "rope_scaling" if "rope_scaling" in given else "rope_parameters"
    faults += _rotations(path, section, values, ropes)
    if not values.keys() >= family.fields.keys():
        return tuple(faults)
    types = tuple(values.get("layer_types") or family.types(values))
    window = values.get("sliding_window") if values.get("use_sliding_window", True) else None
    if SLIDING in types and window is None:
        problem = f"is not in use, but layer_types has {SLIDING}"
        cure = "write a number (with use_sliding_window where there is one), or change layer_types"
        faults.append(Fault(f"{path}.sliding_window", config.get("sliding_window"), problem, cure))
    if faults:
        return tuple(faults)
    scale = values["head_dim"] ** -0.5
    layers = (Layer(ropes[kind], window if kind == SLIDING else None, scale) for kind in types)
    return family.architecture(values, tuple(layers))


def _respelled(
    family: Family, path: str, config: Mapping[str, Any]
) -> tuple[dict[str, Any], list[Fault]]:
    """A config in the spelling that is read, and what contradicts itself in two."""
    found, faults = dict(config), []
    for other, spelling in family.other_spellings.items():
        value = found.pop(other, None)
        if value is None:
            continue
        if found.get(spelling) not in (None, value):
            problem = f"contradicts {path}.{spelling}, {found[spelling]!r}"
            faults.append(Fault(f"{path}.{other}", value, problem, "leave out one of the two"))
        found[spelling] = value
    return found, faults


def passed_over(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The fields of a config that neither transformers nor any family here reads.

    Tools leave such stamps. What is near a field that is read is none, but a misspelt field.

    Args:
        config: fields of `config.json`, of a family that is known.
    """
    family = FAMILIES[config["model_type"]]
    read = {*FIXED, *family.reads}
    known = {*read, *family.without_effect, *WITHOUT_EFFECT}
    strangers = [name for name, value in config.items() if name not in known and value is not None]
    elsewhere = {*READ_ON_LOADING, *(name for each in FAMILIES.values() for name in each.reads)}
    found = [name for name in strangers if name not in elsewhere and nearest(name, read) is None]
    # The import takes a second, and few files have a stamp.
    fields_there = transformers_fields(family.model_type) if found else ()
    return tuple(name for name in found if name not in fields_there)


def transformers_fields(model_type: str) -> frozenset[str]:
    """The fields that transformers' config class of a family knows."""
    from transformers import AutoConfig

    theirs = type(AutoConfig.for_model(model_type))
    return frozenset({*(each.name for each in dataclasses.fields(theirs)), *theirs.attribute_map})


def _values(family: Family, config: Mapping[str, Any], vocab_size: int | None) -> dict[str, Any]:
    """The values of all fields that are sound, or have a default, or follow from others."""
    values = {}
    for name, field in family.fields.items():
        value = config.get(family.spelled(name))
        if value is not None:
            if field.rule.holds(value):
                values[name] = value
        elif field.nullable and (field.default is None or family.spelled(name) in config):
            values[name] = None
        elif field.default is not None:
            values[name] = field.default
        elif name == "vocab_size" and vocab_size is not None:
            values[name] = vocab_size
    hidden, heads = values.get("hidden_size"), values.get("num_attention_heads")
    if heads and values.get("num_key_value_heads") is None:
        values["num_key_value_heads"] = heads
    if hidden and heads and hidden % heads == 0 and values.get("head_dim") is None:
        values["head_dim"] = hidden // heads
    return values


def _relations(
    family: Family,
    path: str,
    given: Mapping[str, Any],
    values: Mapping[str, Any],
    vocab_size: int | None,
) -> list[Fault]:
    """What is wrong between fields, as far as they are known."""
    faults = []
    hidden, heads = values.get("hidden_size"), values.get("num_attention_heads")
    shared = values.get("num_key_value_heads")
    called = f"{path}.{family.spelled('hidden_size')}", family.spelled("num_attention_heads")
    if hidden and heads and values.get("head_dim") is None:
        problem = f"must be a multiple of {called[1]}, {heads}"
        faults.append(Fault(called[0], hidden, problem, "change one of the two"))
    if heads and shared and heads % shared:
        where, problem = f"{path}.num_key_value_heads", f"must divide {called[1]}, {heads}"
        if "num_key_value_heads" in given:
            faults.append(Fault(where, shared, problem, "change one of the two"))
        else:
            problem = f"is {shared} by default, which {problem}"
            faults.append(Fault(where, ABSENT, problem, f"write it, e.g. {heads}"))
    if vocab_size is not None and values.get("vocab_size", vocab_size) < vocab_size:
        problem = f"must be at least the tokenizer's vocabulary, {vocab_size}"
        cure = "raise it or leave it out, or take the tokenizer that belongs to the model"
        faults.append(Fault(f"{path}.vocab_size", values["vocab_size"], problem, cure))
    experts, few = values.get("num_experts"), values.get("num_experts_per_tok")
    if experts and few and few > experts:
        problem = f"must be at most {family.spelled('num_experts')}, {experts}"
        faults.append(Fault(f"{path}.num_experts_per_tok", few, problem, "change one of the two"))
    for name in PER_LAYER:
        entries, layers = values.get(name), values.get("num_hidden_layers")
        if entries is not None and layers and len(entries) != layers:
            problem = f"has {len(entries)} entries; must have one for each of {layers} layers"
            faults.append(Fault(f"{path}.{name}", entries, problem, "correct it, or leave it out"))
    return faults


def _rotations(
    path: str, section: str, values: Mapping[str, Any], ropes: Mapping[str, Rope | None]
) -> list[Fault]:
    """What is wrong with the number of features that are rotated, as `section` has it."""
    head_dim, faults = values.get("head_dim"), []
    if not head_dim:
        return faults
    for rope in dict.fromkeys(rope for rope in ropes.values() if rope is not None):
        turned = rotated_features(rope, head_dim)
        share = rope.partial_rotary_factor
        what = "must be" if share == 1 else f"{share:g} of it must be"
        cure = "change it, or the sizes whose ratio it is"
        if turned < 2 or turned % 2:
            problem = f"{what} even, because rotary embeddings turn pairs of features"
            faults.append(Fault(f"{path}.head_dim", head_dim, problem, cure))
        elif rope.rope_type == "dynamic" and turned == 2:
            problem = f"{what} above 2, because the dynamic rotary embedding spreads over pairs"
            faults.append(Fault(f"{path}.head_dim", head_dim, problem, cure))
        for name in ("short_factor", "long_factor") if rope.rope_type == "longrope" else ():
            if (entries := len(getattr(rope, name))) != turned // 2:
                problem = f"has {entries} entries; must have one for each of {turned // 2} pairs"
                where = f"{path}.{section}.{name}"
                cure = "take those that belong to the model"
                faults.append(Fault(where, list(getattr(rope, name)), problem, cure))
    return faults
