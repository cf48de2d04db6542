"""What a page links to, or names as a file of the project, is there."""

import re

import pytest
from docs.pages import PAGES, PROJECT, WRITTEN, name, prose, read

from metatune.report.field_page import anchor


def headings(page):
    return [anchor(head) for head in re.findall(r"^#+ (.*)", read(page), re.MULTILINE)]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)\s]+)\)", prose(page))
    assert links or page.name not in ("README.md", "fields.md")
    for link in links:
        if link.startswith("https://"):
            continue
        path, _, part = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not part or part in headings(target), link


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_no_two_headings_are_one(page):
    found = headings(page)
    assert len(found) == len(set(found))


@pytest.mark.parametrize("page", WRITTEN, ids=name)
def test_files_that_are_named_are_there(page):
    roots = "app|models|data|tests|scripts|recipes|docs"
    named = re.findall(rf"\b((?:{roots})/[\w./-]*\w/?)", read(page))
    for path in named:
        assert (PROJECT / path).exists() or path == "models/metatune/models/", path


def test_the_readme_leads_to_every_page():
    linked = set(re.findall(r"\]\((docs/[^)#]+)\)", read(PROJECT / "README.md")))
    assert linked == {name(page) for page in PAGES if page.parent == PROJECT / "docs"}


def test_the_readme_stays_short():
    assert (PROJECT / "README.md").stat().st_size <= 9000
