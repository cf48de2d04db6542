"""What the headers of the shipped recipes say, and docs/recipes.md of them."""

import re
import shlex
from pathlib import Path

import pytest

from metatune.recipe import reading, shipped

PROJECT = Path(__file__).parents[2]


def header(name):
    """A recipe's header without its hashes, lines that end in a backslash joined."""
    lines = (shipped.folder() / f"{name}.yaml").read_text().splitlines()
    said = [line.removeprefix("#").strip() for line in lines if line.startswith("#")]
    return "\n".join(said).replace("\\\n", "")


def test_all_are_found():
    assert len(shipped.names()) == len(list((PROJECT / "recipes").glob("*.yaml"))) >= 8


def test_a_file_goes_before_a_shipped_recipe_and_a_folder_of_its_name_does_not(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    Path("quickstart").mkdir()
    assert shipped.find("quickstart") == shipped.folder() / "quickstart.yaml"
    Path("everything").write_text("")
    assert shipped.find("everything") == Path("everything")


@pytest.mark.parametrize("name", shipped.names())
def test_a_headline_is_a_sentence(name):
    assert shipped.headline(name).endswith(".")


@pytest.mark.parametrize("name", shipped.names())
def test_a_header_s_commands_are_sound(name):
    commands = [shlex.split(each) for each in re.findall(r"metatune fit .*", header(name))]
    assert len(commands) == 2  # to launch, and to override
    overrides = []
    for _, _, recipe, *changes, option, _ in commands:
        assert (recipe, option) == (name, "--out")
        reading.read(shipped.find(name), changes)
        overrides.append(changes)
    assert overrides[1]
    for script in re.findall(r"python (\S+\.py)", header(name)):
        assert (PROJECT / script).exists()


@pytest.mark.parametrize("name", shipped.names())
def test_the_table_has_what_a_header_says_came_out(name):
    before, after = re.findall(r"(\d\.\d+) -> (\d\.\d+)", header(name))[0]
    page = (PROJECT / "docs" / "recipes.md").read_text(encoding="utf-8")
    rows = re.findall(rf"^\| `{name}` .*", page, re.MULTILINE)
    assert len(rows) == 1
    cells = [cell.strip() for cell in rows[0].split("|")]
    assert [before, after] == cells[3:5]
