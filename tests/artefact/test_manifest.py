"""Files of an artefact that are missing, edited or added are each named."""

import json

import numpy as np
import pytest

from metatune.artefact import ArtefactError, Origin, load, write
from metatune.artefact.manifest import sha256

ORIGIN = Origin(
    "seed: 1\nname: é\n",
    {"learning_rates": np.array([[0.1, -2.5e-8]], np.float32), "optimizer.b1": np.array(0.3)},
    {"machine": {"cpu": "x"}, "training": {"seed": 0, "steps": [0], "losses": [0.1]}},
)
FILES = {"README.md", "recipe.yaml", "meta_parameters.safetensors", "replay.json"}


@pytest.fixture
def file(make, tmp_path):
    return write(tmp_path / "a", make(origin=ORIGIN), "# Read me\n")


def fault_of(path):
    with pytest.raises(ArtefactError) as caught:
        load(path)
    return str(caught.value)


def test_the_origin_comes_back_to_the_bit(file):
    back = load(file).origin
    assert back is not None
    assert (back.recipe, back.record) == (ORIGIN.recipe, ORIGIN.record)
    assert back.meta_parameters.keys() == ORIGIN.meta_parameters.keys()
    for name, value in ORIGIN.meta_parameters.items():
        np.testing.assert_array_equal(back.meta_parameters[name], value, strict=True)


def test_an_origin_without_a_record_comes_back(make, tmp_path):
    bare = Origin(ORIGIN.recipe, ORIGIN.meta_parameters)
    back = load(write(tmp_path / "a", make(origin=bare), "")).origin
    assert back is not None and back.record is None and back.recipe == ORIGIN.recipe


def test_every_file_is_listed(file):
    stated = json.loads(file.read_text())["integrity"]["files"]
    assert stated == {name: sha256((file.parent / name).read_bytes()) for name in sorted(FILES)}


def test_edited_missing_and_added_files_are_named_together(file):
    folder, stated = file.parent, json.loads(file.read_text())["integrity"]["files"]
    (folder / "recipe.yaml").write_text("seed: 2\n")
    (folder / "README.md").unlink()
    (folder / "notes.txt").write_text("mine")
    (folder / "certificate.json").write_text("{}")
    said = fault_of(file).splitlines()
    assert said[0] == f"{file}: 4 faults"
    assert said[1].startswith("  integrity.files.README.md = ")
    assert f"not found at {folder / 'README.md'}, where it was written; copy the whole" in said[1]
    recipe = folder / "recipe.yaml"
    assert said[2] == (
        f"  integrity.files.recipe.yaml = {stated['recipe.yaml']!r}: the hash of {recipe} is "
        f"{sha256('seed: 2' + chr(10))}: the file was changed after it was written; "
        "take the artefact anew from the run that wrote it"
    )
    assert said[3].startswith(f"  integrity.files = 'certificate.json': lies in {folder}, but ")
    assert said[3].endswith("`metatune check --run` writes it so that the artefact stays whole")
    assert said[4].startswith(f"  integrity.files = 'notes.txt': lies in {folder}, but isn't of")


def test_hidden_files_and_folders_are_none_of_ours(file):
    (file.parent / ".DS_Store").write_text("")
    (file.parent / "tuned-torch").mkdir()
    assert load(file).horizon_steps == 20


def test_an_artefact_from_before_the_list_is_read(file, edit):
    edit(file, "integrity", "files", to=KeyError, sign=True)
    (file.parent / "notes.txt").write_text("mine")
    (file.parent / "README.md").unlink()
    assert load(file).horizon_steps == 20


def test_the_list_itself_is_under_the_hash(file, edit):
    edit(file, "integrity", "files", to=KeyError)
    assert "integrity.sha256" in fault_of(file)


def test_a_listed_name_is_never_a_path(file, edit):
    edit(file, "integrity", "files", "../recipe.yaml", to="0" * 64)
    assert "must be the name of a file in the same folder" in fault_of(file)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("replay.json", b"{", "not JSON"),
        ("replay.json", b'{"format": "metatune-replay", "version": 2}', "must hold 1"),
        ("replay.json", b'{"format": "metatune-replay", "version": 1}', "machine: is missing"),
        ("meta_parameters.safetensors", b"no", "not safetensors"),
        ("recipe.yaml", b"\xff", "not UTF-8 text"),
    ],
)
def test_what_another_writer_signed_is_checked(file, edit, name, content, said):
    (file.parent / name).write_bytes(content)
    edit(file, "version", to=1, sign=True)
    assert fault_of(file).startswith(str(file.parent / name)) and said in fault_of(file)
