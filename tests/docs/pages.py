"""The pages that are written for readers."""

import re
from pathlib import Path

PROJECT = Path(__file__).parents[2]
PAGES = sorted(
    [PROJECT / "README.md", PROJECT / "CONTRIBUTING.md", *(PROJECT / "docs").rglob("*.md")]
)
WRITTEN = [page for page in PAGES if page.name != "fields.md"]
"""Those that no script writes."""


def name(page):
    """A page by its path, for the names of tests."""
    return page.relative_to(PROJECT).as_posix()


def read(page):
    return page.read_text(encoding="utf-8")


def blocks(page, language):
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", read(page), re.DOTALL | re.MULTILINE)


def prose(page):
    """A page without its fenced and indented blocks."""
    text = re.sub(r"^```.*?^```", "", read(page), flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"^    .*", "", text, flags=re.MULTILINE)
