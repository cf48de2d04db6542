"""Names cut to a width."""

import doctest

import pytest

from metatune.recipe import shortening
from metatune.recipe.shortening import shortened

NAME = "model.layers.0.self_attn.q_proj.weight"


def test_its_examples_hold():
    tried = doctest.testmod(shortening)
    assert tried.attempted == 2 and not tried.failed


@pytest.mark.parametrize("text", [NAME, "x" * 99, "a.b", "/home/somebody/runs/data.jsonl"])
@pytest.mark.parametrize("longest", range(3, 60))
def test_no_more_than_the_width_and_both_ends(text, longest):
    short = shortened(text, longest)
    assert len(short) <= longest
    if len(text) <= longest:
        assert short == text
    else:
        head, tail = short.split("…")
        assert text.startswith(head) and text.endswith(tail) and head and tail
        assert len(short) >= longest / 2


def test_names_keep_whole_parts():
    assert shortened(NAME, 30) == "model.layers.0…q_proj.weight"
    assert shortened(NAME, 28) == "model.layers…q_proj.weight"
