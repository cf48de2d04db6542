"""What parameters are for, over all families."""

import jax
import pytest

from metatune.artefact.kinds import KINDS, kind_of
from metatune.models import ParameterNames, build
from metatune.models.families import FAMILIES
from metatune.recipe.faults import RecipeError
from metatune.tunables.groups import group


def names_of(family, tied):
    sizes = {
        "hidden_size": 16,
        "intermediate_size": 12,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "tie_word_embeddings": tied,
    }
    grouped = {"num_key_value_heads": 2, "head_dim": 8}
    sizes |= {name: size for name, size in grouped.items() if name in family.fields}
    experts = {"moe_intermediate_size": 6, "num_experts": 3, "num_experts_per_tok": 2}
    sizes |= {name: size for name, size in experts.items() if name in family.fields}
    config = {family.spelled(name): size for name, size in sizes.items()}
    return build({"model_type": family.model_type, **config}, vocab_size=16).names()


@pytest.mark.parametrize("family", FAMILIES.values(), ids=lambda family: family.model_type)
def test_every_parameter_of_every_family_has_a_kind(family):
    for tied in (True, False):
        names = names_of(family, tied)
        members = group(names, "kind", "").members
        without = {"head"} if tied else set()
        if family.model_type == "nanochat":  # whose norms have no weights
            without |= {"norm"}
        assert set(members) == set(KINDS) - without
        everything = sum(len(leaf.names) for leaf in jax.tree.leaves(names))
        assert sum(map(len, members.values())) == everything
        # The same by the names that the model itself has for them, whatever the family's are.
        own = {
            "norm": ("norm",),
            "attention": ("self_attn",),
            "mlp": ("mlp",),
            "embedding": ("embed",),
            "head": ("lm_head",),
        }
        for path, leaf in jax.tree_util.tree_leaves_with_path(names):
            ours = jax.tree_util.keystr(path, simple=True, separator=".")
            for name in leaf.names:
                kind = kind_of(name)
                assert kind and all(part in ours for part in own[kind]), (name, ours, kind)
        by_layer = group(names, "layer_kind", "").labels
        within = len({"norm", "attention", "mlp"} - without)
        assert len(by_layer) == 2 * within + len(members) - 2


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("model.layers.0.post_attention_layernorm.weight", "norm"),
        ("model.layers.3.self_attn.q_norm.weight", "norm"),
        ("model.layers.3.self_attn.q_proj.bias", "attention"),
        ("transformer.h.1.attn.c_proj.weight", "attention"),
        ("transformer.h.1.mlp.c_proj.weight", "mlp"),
        ("transformer.ln_f.bias", "norm"),
        ("gpt_neox.layers.0.attention.dense.weight", "attention"),
        ("gpt_neox.layers.0.mlp.dense_h_to_4h.weight", "mlp"),
        ("model.layers.0.mlp.fc1.weight", "mlp"),
        ("embed_out.weight", "head"),
        ("base_model.model.model.layers.0.self_attn.v_proj.lora_A.weight", "attention"),
        ("model.experts.gate.weight", None),
    ],
)
def test_kinds_by_name(name, kind):
    assert kind_of(name) == kind


def test_a_name_of_no_kind_is_refused():
    tree = names_of(FAMILIES["llama"], True)
    strange = {**tree, "other": ParameterNames(("model.gate.weight",), False)}
    with pytest.raises(RecipeError) as refused:
        group(strange, "layer_kind", "tune.learning_rates.per")
    (fault,) = refused.value.faults
    assert str(fault) == (
        "tune.learning_rates.per = 'layer_kind': model.gate.weight is none of norm, attention, "
        "mlp, head, embedding (1 such in all); group parameters by regular expressions on their "
        "names"
    )
