"""Writes the JSON Schema of a tuned.json anew, from the pieces of its sections.

python scripts/write_schema.py
"""

import json
from pathlib import Path

from metatune.artefact.document import schema

FILE = Path(__file__).parents[1] / "app/metatune/artefact/schema.json"


def main() -> None:
    """Writes the file."""
    FILE.write_text(json.dumps(schema(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
