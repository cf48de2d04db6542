"""Lines of a terminal: where they are broken, and where never."""

import pytest

from metatune.report.lines import INDENT, laid_out, wrapped

FIELDS = [
    "point 10/10",
    "objective 2.1710",
    "held-out 2.1710 (best 2.1710)",
    "|d learning_rates| 0.0602",
    "",
    "|d mixture| 0.0581",
    "rates x0.35 to x2.92",
    "12.3 s",
]


def test_without_a_width_fields_are_one_line():
    assert laid_out(FIELDS, None) == "  ".join(field for field in FIELDS if field)


@pytest.mark.parametrize("width", [30, 40, 60, 79, 80, 120, 500])
def test_lines_break_between_fields_alone(width):
    lines = laid_out(FIELDS, width).split("\n")
    assert all(len(line) <= max(width, len(INDENT) + 29) for line in lines)
    assert all(line.startswith(INDENT) for line in lines[1:])
    found = [field for line in lines for field in line.strip().split("  ")]
    if width >= len(INDENT) + 29:  # the widest field
        assert found == [field for field in FIELDS if field]


def test_a_field_that_is_wider_than_the_terminal_is_broken_between_its_words():
    assert laid_out(["point 1/2", "held-out 2.1710 (best 2.1710)"], 20).split("\n") == [
        "point 1/2",
        "    held-out 2.1710",
        "    (best 2.1710)",
    ]


def test_a_sentence_breaks_between_words_and_a_path_never():
    path = "/very/long-path/that-is/wider-than/a-line"
    lines = wrapped(f"written to {path} by metatune; 0.123-0.456", 20).split("\n")
    assert lines == ["written to", f"    {path}", "    by metatune;", "    0.123-0.456"]
    assert wrapped("  indented and long enough", 16).split("\n") == [
        "  indented and",
        "      long",
        "      enough",
    ]
    assert wrapped("a\n\nb", 10) == "a\n\nb"
    assert wrapped("a " * 100, None) == "a " * 100
