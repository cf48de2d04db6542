import ast
import dataclasses
import os
import re
import subprocess
import sys
import sysconfig

import numpy as np
import pytest

from metatune.artefact import ArtefactError, Mixture, load
from metatune.artefact.exporters import EXPORTERS, export, replaceable
from metatune.artefact.sections import learning_rates as rates_module

ALL = {"lossy": True, "sequences_per_step": 2048}
"""What every target takes; a step of a block lets Levanter change shares at each."""

MODULES = {"torch": "torch_schedules", "hf-trainer": "torch_schedules", "optax": "optax_schedules"}


@pytest.mark.parametrize("target", EXPORTERS)
def test_an_export_holds_every_number(make, tmp_path, monkeypatch, target):
    artefact = make()
    paths = export(artefact, target, tmp_path / "out", **ALL).paths
    assert sorted(paths) == sorted((tmp_path / "out").iterdir())
    assert all(replaceable(path.name) for path in paths)
    back = load(tmp_path / "out")
    for name, curve in artefact.learning_rates.parameters.items():
        assert back.learning_rates.parameters[name].tolist() == curve.tolist()
    monkeypatch.setattr(rates_module, "READABLE_NUMBERS", 0)
    export(artefact, target, tmp_path / "large", **ALL)
    assert not (tmp_path / "large" / "tuned.safetensors").exists()
    assert (tmp_path / "large" / "tuned.json").read_text() == (
        tmp_path / "out" / "tuned.json"
    ).read_text()


@pytest.mark.parametrize("target", EXPORTERS)
@pytest.mark.parametrize("bare", [False, True])
def test_the_readme_says_what_is_there(make, settings, tmp_path, target, bare):
    changes = {"mixture": None, "loss_weights": None} if bare else {}
    if settings["kind"] not in EXPORTERS[target].optimizers:
        with pytest.raises(ArtefactError, match=f"{target} takes the rates of adamw alone; choose"):
            export(make(settings=settings), target, tmp_path / "out", **ALL)
        return
    export(make(settings=settings, **changes), target, tmp_path / "out", **ALL)
    text = (tmp_path / "out" / "README.md").read_text()
    assert "- tuned over 20 updates, 10,240 tokens\n" in text
    assert f"- for the optimizer {settings['kind']}: weight_decay" in text
    assert ("No mixture was tuned" in text) == bare
    assert ("- shares of code, drama, é at 4 knots" in text) == (not bare)
    assert "## What is lost" in text and "$" not in text
    for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        ast.parse(code)
    if target == "torch":
        assert ("clip_grad_norm_(model.parameters(), 1.0)" in text) == (settings["clip_norm"] == 1)
    if target == "hf-trainer":
        assert f"max_grad_norm={settings['clip_norm'] or 0.0}," in text


@pytest.mark.parametrize(
    "target",
    [
        pytest.param(name, marks=[] if name == "optax" else pytest.mark.needs("torch"))
        for name in MODULES
    ],
)
def test_an_export_works_without_metatune(make, tmp_path, target):
    export(make(), target, tmp_path / "out")
    code = f"""
import sys
sys.path[:0] = [{str(tmp_path / "out")!r}, {sysconfig.get_paths()["purelib"]!r}]
class Refuse:
    def find_spec(self, name, *_):
        if name.split(".")[0] == "metatune":
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
import metatune_schedules
print(metatune_schedules.mixture(0, 20)["code"])
"""
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == load(tmp_path / "out").mixture_at(0, 20)["code"]


def test_an_unknown_target(make, tmp_path):
    with pytest.raises(ArtefactError) as caught:
        export(make(), "hf-trainr", tmp_path / "out")
    assert str(caught.value) == (
        "export: target = 'hf-trainr': unknown target; did you mean hf-trainer? "
        f"(allowed: {', '.join(EXPORTERS)})"
    )


def test_overwriting_is_asked_for(make, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    export(make(), "torch", folder)
    (folder / "__pycache__").mkdir()
    with pytest.raises(ArtefactError) as caught:
        export(make(), "json", folder)
    assert str(caught.value) == (
        f"export: folder = {str(folder)!r}: is not empty; name another, or replace it (`overwrite`)"
    )
    export(make(), "json", folder, overwrite=True)
    found = {path.name for path in folder.iterdir()}
    assert found == {"tuned.json", "README.md", "metatune_schedule.py"}


def test_overwriting_spares_other_files(make, tmp_path):
    (tmp_path / "thesis.tex").write_text("all of it")
    with pytest.raises(ArtefactError, match="did not write there: thesis.tex; move that away"):
        export(make(), "json", tmp_path, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_neither_jax_nor_torch_is_needed_to_export():
    code = """
import sys
import metatune.artefact.exporters
print(sorted({"jax", "torch", "transformers"} & set(sys.modules)))
"""
    path = {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | path, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_another_version_of_a_target_is_refused(make, tmp_path):
    export(make(), "torch", tmp_path / "out", target_version="2.13")
    with pytest.raises(ArtefactError, match="target_version = '9': the export to torch is"):
        export(make(), "torch", tmp_path / "more", target_version="9")


@pytest.mark.parametrize("target", EXPORTERS)
def test_every_export_of_a_mixture_says_whether_the_data_last(make, tmp_path, target):
    """The tokens of `steps` x `tokens_per_step` at the mean shares, against those of the data."""
    shares = np.array([[0.75, 0.25], [0.25, 0.75]])
    mixture = Mixture((0.0, 0.5), "constant", ("code", "drama"), shares)
    held = {"code": {"documents": 5, "tokens": 2000}, "drama": {"documents": 5, "tokens": 9000}}
    artefact = make(mixture=mixture, loss_weights=None, provenance={"domains": held})
    options = {"steps": 20, "tokens_per_step": 512, "sequences_per_step": 2048, "lossy": True}
    export(artefact, target, tmp_path / "out", **options)
    text = (tmp_path / "out" / "README.md").read_text()
    if EXPORTERS[target].capabilities["mixture"] == "no":
        assert "2.56 times" not in text
        return
    said = (
        "- code: the training reads 5,120 tokens, 2.56 times those of the tuned data (2,000): give"
    )
    assert said in text and "- drama: the training reads" not in text
    export(dataclasses.replace(artefact, provenance={}), target, tmp_path / "more", **options)
    text = (tmp_path / "more" / "README.md").read_text()
    assert "- drama: give it 5,120 tokens or more, as the training reads" in text
