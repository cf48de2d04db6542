"""What scripts/render_reference.py writes is what the code says today."""

import re

from docs.pages import PROJECT, read

from metatune.recipe.reference import every
from metatune.recipe.rules import said_fields
from metatune.report import export_table, field_page

AGAIN = "run scripts/render_reference.py"


def test_the_fields_are_those_of_the_schema():
    assert read(PROJECT / "docs" / "fields.md") == field_page.markdown(), AGAIN


def test_the_targets_are_those_of_the_exporters():
    page = read(PROJECT / "docs" / "exports.md")
    assert export_table.markdown() in page, AGAIN
    assert export_table.meanings() in page, AGAIN


def test_every_field_is_on_the_page():
    """Under the heading of its section; the sections of a class share that of one."""
    parts = dict(part.split("`", 1) for part in field_page.markdown().split("\n## `")[1:])
    for cls in {entry.section for entry in every() if entry.section}:
        (text,) = (parts[e.path] for e in every() if e.section is cls and e.path in parts)
        rows = re.findall(r"^\| \[?`(\w+)`", text, re.MULTILINE)
        assert rows == [field.name for field in said_fields(cls)]
