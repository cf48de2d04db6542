#!/usr/bin/env python3
"""Writes what docs/ has from the code: every field of a recipe, and what each target can express.

docs/fields.md is written anew; in docs/exports.md the tables of targets and of numbers are. Run it
after a change of the schema or of an exporter; tests/docs/test_generated.py fails until it was.

usage: render_reference.py
"""

import re
from pathlib import Path

from metatune.report import export_table, field_page

DOCS = Path(__file__).resolve().parents[1] / "docs"
TABLES = {
    r"(?<=\n\n)\| target \|.*?\n(?=\n)": export_table.markdown,
    r"(?<=\n\n)\| in \| number \|.*?\n(?=\n)": export_table.meanings,
}
"""Of docs/exports.md, by what they begin with."""


def main() -> None:
    """Writes both."""
    (DOCS / "fields.md").write_text(field_page.markdown(), encoding="utf-8")
    exports = DOCS / "exports.md"
    text = exports.read_text(encoding="utf-8")
    for pattern, table in TABLES.items():
        text, found = re.subn(pattern, lambda _, table=table: table(), text, flags=re.DOTALL)
        if found != 1:
            raise SystemExit(f"{exports} has {found} tables like {pattern}, not one")
    exports.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
