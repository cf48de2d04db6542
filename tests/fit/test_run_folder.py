"""A run's folder is never overwritten silently, and never half-written."""

import dataclasses

import pytest

from metatune.fit.run_folder import RunFolder, RunFolderError, open_run
from metatune.recipe import schema

RECIPE = schema.Recipe(
    model=schema.Model(config={"model_type": "llama"}),
    data=schema.Data(
        domains={"code": schema.Source(shipped="code_stdlib")},
        target={"code": 1.0},
        sequence_length=16,
        batch_size=4,
    ),
    inner=schema.Inner(optimizer=schema.AdamW(learning_rate=3e-3), steps=50),
    tune=schema.Tune(learning_rates=schema.LearningRates(per="global")),
    outer=schema.Outer(steps=1),
)
FRESH = {"resume": False, "overwrite": False}


def test_a_new_folder_gets_the_recipe(tmp_path):
    folder = open_run(tmp_path / "a" / "run", RECIPE, **FRESH)
    assert folder.holds_run()
    assert "shipped: code_stdlib" in folder.recipe.read_text()


def test_a_run_is_neither_overwritten_nor_resumed_unasked(tmp_path):
    open_run(tmp_path, RECIPE, **FRESH)
    with pytest.raises(RunFolderError, match="holds a run already; --resume to go on.*--overwrite"):
        open_run(tmp_path, RECIPE, **FRESH)
    open_run(tmp_path, RECIPE, resume=True, overwrite=False)


def test_overwriting_deletes_the_run_and_nothing_else(tmp_path):
    folder = open_run(tmp_path, RECIPE, **FRESH)
    folder.append_metrics({"step": 0})
    folder.checkpoints.mkdir()
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(RunFolderError, match="is not empty and holds no run.*precious"):
        open_run(tmp_path, RECIPE, resume=False, overwrite=True)
    assert (tmp_path / "precious.txt").read_text() == "mine"
    (tmp_path / "precious.txt").unlink()
    fresh = open_run(tmp_path, RECIPE, **FRESH)
    assert fresh.read_metrics() == []
    assert not fresh.checkpoints.exists()


def test_other_folders_and_files_are_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(
        RunFolderError, match=r"is not empty and holds no run \(it has thesis.tex\)"
    ):
        open_run(tmp_path, RECIPE, **FRESH)
    with pytest.raises(RunFolderError, match="is a file; give a folder"):
        open_run(tmp_path / "thesis.tex", RECIPE, **FRESH)
    with pytest.raises(RunFolderError, match="exclude each other"):
        open_run(tmp_path, RECIPE, resume=True, overwrite=True)


def test_resuming_needs_a_run_of_the_same_recipe(tmp_path):
    with pytest.raises(RunFolderError, match="holds no run to resume"):
        open_run(tmp_path / "new", RECIPE, resume=True, overwrite=False)
    open_run(tmp_path / "run", RECIPE, **FRESH)
    other = dataclasses.replace(RECIPE, seed=1, outer=schema.Outer(steps=7))
    with pytest.raises(RunFolderError, match="another recipe") as refused:
        open_run(tmp_path / "run", other, resume=True, overwrite=False)
    assert "outer.steps: 1 then, 7 now" in str(refused.value)
    assert "seed: 0 then, 1 now" in str(refused.value)


def test_metrics_survive_a_line_cut_off_by_a_kill(tmp_path):
    folder = RunFolder(tmp_path)
    for step in range(3):
        folder.append_metrics({"step": step})
    with folder.metrics.open("a") as file:
        file.write('{"step": 3, "obj')
    assert [line["step"] for line in folder.read_metrics()] == [0, 1, 2]
    folder.forget_metrics_from(2)
    assert [line["step"] for line in folder.read_metrics()] == [0, 1]
