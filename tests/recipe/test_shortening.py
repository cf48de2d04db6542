"""Names cut to a width."""

import pytest

from metatune.recipe.shortening import shortened

NAME = "model.layers.0.self_attn.q_proj.weight"


@pytest.mark.parametrize("text", [NAME, "x" * 99, "a.b", "/home/somebody/runs/data.jsonl"])
@pytest.mark.parametrize("longest", range(3, 60))
def test_no_more_than_the_width_and_both_ends(text, longest):
    short = shortened(text, longest)
    assert len(short) <= longest
    if len(text) <= longest:
        assert short == text
    else:
        head, *_, tail = short.split("…")
        assert text.startswith(head) and text.endswith(tail) and (head or tail)


@pytest.mark.parametrize("longest", range(26, 50))
def test_the_parameters_of_a_model_stay_apart(longest):
    names = [
        f"model.layers.{layer}.{inner}.weight"
        for layer in (0, 1, 10, 11)
        for inner in (
            *(f"self_attn.{key}_proj" for key in "qkvo"),
            *(f"self_attn.{key}_norm" for key in "qk"),
            *(f"mlp.{key}_proj" for key in ("gate", "up", "down")),
            "input_layernorm",
            "post_attention_layernorm",
            "pre_feedforward_layernorm",
            "post_feedforward_layernorm",
        )
    ]
    names += [
        f"transformer.h.{layer}.{inner}.{what}"
        for layer in (0, 1, 11)
        for inner in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj", "ln_1", "ln_2")
        for what in ("weight", "bias")
    ]
    assert len({shortened(name, longest) for name in names}) == len(names)


def test_names_keep_whole_parts():
    assert shortened(NAME, 30) == "…0.self_attn.q_proj.weight"
    assert shortened(NAME, 25) == "…0.self_attn…_proj.weight"
