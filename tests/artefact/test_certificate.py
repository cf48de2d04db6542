"""The certificate beside an artefact: it comes back, stays with its recipe, or is refused."""

import dataclasses
import json

import pytest

from metatune.artefact import ArtefactError, load, read_certificate, with_certificate, write

CERTIFICATE = {
    "format": "metatune-certificate",
    "version": 1,
    "verdict": "amber",
    "causes": ["why ε"],
    "recipe_sha256": "abc",
    "checks": {"training": None},
}


@pytest.fixture
def certified(make):
    tuned = make(provenance={"recipe_sha256": "abc"})
    return dataclasses.replace(tuned, certificate=CERTIFICATE)


def test_it_comes_back_and_goes_when_it_is_not_written_again(certified, make, tmp_path):
    folder = tmp_path / "artefact"
    write(folder, certified, "")
    before = json.loads((folder / "tuned.json").read_text())
    assert load(folder).certificate == CERTIFICATE == read_certificate(folder)
    write(folder, dataclasses.replace(certified, certificate=None), "")
    assert load(folder).certificate is None is read_certificate(folder)
    after = json.loads((folder / "tuned.json").read_text())
    assert before.pop("integrity")["files"].keys() == {"README.md", "certificate.json"}
    assert after.pop("integrity")["files"].keys() == {"README.md"}
    assert before == after


def test_it_belongs_to_its_recipe(certified, make, tmp_path):
    other = make(provenance={"recipe_sha256": "def"})
    assert with_certificate(other, CERTIFICATE).certificate is None
    assert with_certificate(certified, None).certificate is None
    assert with_certificate(make(provenance={"recipe_sha256": "abc"}), CERTIFICATE).certificate
    write(tmp_path / "a", dataclasses.replace(other, certificate=CERTIFICATE), "")
    assert load(tmp_path / "a").certificate is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not JSON"),
        ("[]", "format = None: must be 'metatune-certificate'"),
        (json.dumps(CERTIFICATE | {"version": 2}), "version = 2: must be 1"),
        (json.dumps({"format": "metatune-certificate", "version": 1}), "verdict: is missing"),
    ],
)
def test_a_broken_one_is_refused_with_the_cure(certified, tmp_path, edit, text, said):
    file = write(tmp_path / "a", certified, "")
    (tmp_path / "a" / "certificate.json").write_text(text)
    edit(file, "format", to="metatune-artefact", sign=True)
    with pytest.raises(ArtefactError) as refused:
        load(tmp_path / "a")
    assert said in str(refused.value)
    assert "delete it, and write it anew with `metatune check --run`" in str(refused.value)
