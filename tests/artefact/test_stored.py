"""What was written before is read, written and exported as it was then.

`scripts/store_artefacts.py` wrote the artefacts of `stored/` and the hashes of their exports.
"""

import hashlib
import importlib.util
import json
from importlib import resources
from pathlib import Path

import jsonschema
import pytest

from metatune.artefact import ArtefactError, load, write
from metatune.artefact.document import schema
from metatune.artefact.exporters import EXPORTERS, export
from metatune.artefact.sections import SECTIONS
from metatune.recipe.reading import parse

STORED = Path(__file__).parent / "stored"
NAMES = sorted(path.name for path in STORED.iterdir() if path.is_dir())
EXPORTS = json.loads((STORED / "exports.json").read_text(encoding="utf-8"))

every_artefact = pytest.mark.parametrize("name", NAMES)


def test_the_recipes_that_they_are_of_can_still_be_read():
    path = Path(__file__).parents[2] / "scripts" / "store_artefacts.py"
    spec = importlib.util.spec_from_file_location("store_artefacts", path)
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert set(script.CASES) <= set(NAMES)
    for name, case in script.CASES.items():
        parse(script.recipe_of(case), name)


def test_every_section_is_stored():
    stated = [json.loads((STORED / name / "tuned.json").read_text()) for name in NAMES]
    held = {key for document in stated for key in SECTIONS if document.get(key) is not None}
    assert held == set(SECTIONS)
    assert set(EXPORTS) == set(NAMES)


@every_artefact
def test_it_is_written_as_it_was(name, tmp_path):
    readme = (STORED / name / "README.md").read_text()
    write(tmp_path / "again", load(STORED / name), readme)
    for path in (STORED / name).iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes(), path.name


@every_artefact
def test_it_is_exported_as_it_was(name, tmp_path):
    artefact, found = load(STORED / name), {}
    for stored in EXPORTS[name]:
        target, *lossy = stored.split()
        out = tmp_path / target / str(len(lossy))
        try:
            export(artefact, target, out, lossy=bool(lossy), sequences_per_step=4)
        except ArtefactError as error:
            found[stored] = str(error)
            continue
        files = {path.name: path.read_bytes() for path in sorted(out.iterdir())}
        found[stored] = {n: hashlib.sha256(held).hexdigest() for n, held in files.items()}
    assert found == EXPORTS[name]
    assert {stored.split()[0] for stored in EXPORTS[name]} == set(EXPORTERS)


@every_artefact
def test_it_is_as_the_schema_says(name):
    document = json.loads((STORED / name / "tuned.json").read_text())
    jsonschema.Draft202012Validator(schema()).validate(document)


def test_the_schema_s_file_is_current():
    text = (resources.files("metatune.artefact") / "schema.json").read_text(encoding="utf-8")
    assert json.loads(text) == schema(), "run scripts/write_schema.py"
