#!/usr/bin/env python3
"""Writes what docs/ has from the code: every field of a recipe, and what each target can express.

docs/fields.md is written anew; in docs/exports.md the table of targets is. Run it after a change of
the schema or of an exporter; tests/docs/test_generated.py fails until it was.

usage: render_reference.py
"""

import re
from pathlib import Path

from metatune.report import export_table, field_page

DOCS = Path(__file__).resolve().parents[1] / "docs"
TABLE = re.compile(r"(?<=\n\n)\| target \|.*?\n(?=\n)", re.DOTALL)


def main() -> None:
    """Writes both."""
    (DOCS / "fields.md").write_text(field_page.markdown(), encoding="utf-8")
    exports = DOCS / "exports.md"
    text = exports.read_text(encoding="utf-8")
    written, tables = TABLE.subn(lambda _: export_table.markdown(), text)
    if tables != 1:
        raise SystemExit(f"{exports} has {tables} tables of targets, not one")
    exports.write_text(written, encoding="utf-8")


if __name__ == "__main__":
    main()
