"""A model's config: the fields of `config.json` that matter, checked."""

from collections.abc import Mapping
from typing import Any

from metatune.models import fields
from metatune.models.architecture import Architecture, Layer
from metatune.models.families import FAMILIES
from metatune.models.family import Family
from metatune.models.fields import SLIDING, only
from metatune.models.rope import Rope, rotated_features
from metatune.recipe.faults import ABSENT, Fault, unknown

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
    given = {name: value for name, value in config.items() if value is not None}
    rules = {family.spelled(name): field.rule for name, field in family.fields.items()}
    ignored = {*WITHOUT_EFFECT, *family.without_effect, *family.rope_fields}
    required = [family.spelled(name) for name in family.required]
    if vocab_size is None:
        required.append(family.spelled("vocab_size"))
    known = {**rules, **FIXED, **family.fixed}
    faults = fields.faults(path, given, known, required, ignored)
    values = _values(family, config, vocab_size)
    faults += _relations(family, path, values, vocab_size)
    context = values.get("max_position_embeddings", 0)
    ropes = family.ropes(path, given, context)
    if isinstance(ropes, tuple):
        return (*faults, *ropes)
    faults += _rotations(path, values, ropes)
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
    family: Family, path: str, values: Mapping[str, Any], vocab_size: int | None
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
        problem = f"must divide {called[1]}, {heads}"
        faults.append(
            Fault(f"{path}.num_key_value_heads", shared, problem, "change one of the two")
        )
    if vocab_size is not None and values.get("vocab_size", vocab_size) < vocab_size:
        problem = f"must be at least the tokenizer's vocabulary, {vocab_size}"
        cure = "raise it or leave it out, or take the tokenizer that belongs to the model"
        faults.append(Fault(f"{path}.vocab_size", values["vocab_size"], problem, cure))
    for name in PER_LAYER:
        entries, layers = values.get(name), values.get("num_hidden_layers")
        if entries is not None and layers and len(entries) != layers:
            problem = f"has {len(entries)} entries; must have one for each of {layers} layers"
            faults.append(Fault(f"{path}.{name}", entries, problem, "correct it, or leave it out"))
    return faults


def _rotations(
    path: str, values: Mapping[str, Any], ropes: Mapping[str, Rope | None]
) -> list[Fault]:
    """What is wrong with the number of features that are rotated."""
    head_dim, faults = values.get("head_dim"), []
    for rope in dict.fromkeys(rope for rope in ropes.values() if rope is not None):
        turned = rotated_features(rope, head_dim) if head_dim else 2
        if turned < 2 or turned % 2:
            share = rope.partial_rotary_factor
            what = "must be" if share == 1 else f"{share:g} of it must be"
            problem = f"{what} even, because rotary embeddings turn pairs of features"
            cure = "change it, or the sizes whose ratio it is"
            faults.append(Fault(f"{path}.head_dim", head_dim, problem, cure))
    return faults
