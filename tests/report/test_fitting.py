"""Tables in terminals of 80 columns, and of 60."""

import io
import re

import pytest
from rich.console import Console
from rich.table import Table
from rich.text import Text

from metatune.report import export_table
from metatune.report.fitting import Fitting, Name, slack_of

NAMES = [
    f"model.layers.{layer}.{what}.weight"
    for layer in (0, 11)
    for what in ("self_attn.q_proj", "post_attention_layernorm", "mlp.down_proj")
]


def printed(what, width):
    written = io.StringIO()
    Console(file=written, width=width).print(what)
    return written.getvalue().rstrip("\n").split("\n")


def of_names(*heads):
    table = Table("", *heads, box=None, pad_edge=False)
    for name in NAMES:
        table.add_row(Name(name), *("1.25e-03" for _ in heads))
    return table


@pytest.mark.parametrize("width", [60, 80, 100])
def test_names_are_cut_in_their_middle_and_stay_apart(width):
    lines = printed(of_names("first", "last", "lowest"), width)
    assert len(lines) == 1 + len(NAMES) and max(map(len, lines)) <= width
    assert all(line.split()[1:] == ["1.25e-03"] * 3 for line in lines[1:])
    assert len({line.split()[0] for line in lines}) == 1 + len(NAMES)


def test_the_first_way_that_fits_is_taken():
    ways = of_names("first", "last", "lowest"), of_names("first"), Text("none fits")
    slack = slack_of(NAMES)
    assert [len(printed(Fitting(ways, slack), width)[0].split()) for width in (80, 50)] == [3, 1]
    assert printed(Fitting(ways, slack), 30) == ["none fits"]
    whole = Console(width=200).measure(ways[0]).maximum
    assert printed(Fitting(ways), whole)[0].split() == ["first", "last", "lowest"]
    assert printed(Fitting(ways), whole - 1)[0].split() == ["first"]


@pytest.mark.parametrize("width", [60, 80])
def test_targets_in_a_narrow_terminal_are_lists_of_whole_words(width):
    known = set(re.findall(r"[\w'-]+", " ".join(printed(export_table.lists(), 10_000))))
    lines = printed(Fitting((export_table.table(), export_table.lists())), width)
    assert max(len(line) for line in lines) <= width
    assert set(re.findall(r"[\w'-]+", " ".join(lines))) == known
    assert {"json", "hf-trainer", "grain"} <= {line.strip() for line in lines}
