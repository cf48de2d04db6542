"""Folders that are refused, and what is deleted of one that isn't."""

import pytest

from metatune.fit.run_folder import RunFolderError
from metatune.train.folder import TrainingFolder, begin, usable


def test_a_training_is_neither_overwritten_nor_taken_for_a_run(tmp_path):
    folder = usable(tmp_path / "out", resume=False, overwrite=False)
    begin(folder, {"seed": 0}, {folder.recipe: "seed: 0\n"}, resume=False)
    with pytest.raises(RunFolderError, match="holds a training already; --resume to go on"):
        usable(folder.path, resume=False, overwrite=False)
    with pytest.raises(RunFolderError, match="exclude each other"):
        usable(folder.path, resume=True, overwrite=True)
    with pytest.raises(RunFolderError, match="holds no training to resume"):
        usable(tmp_path / "new", resume=True, overwrite=False)
    run = tmp_path / "run"
    run.mkdir()
    (run / "recipe.yaml").write_text("of a search")
    with pytest.raises(RunFolderError, match=r"holds no training \(it has recipe.yaml\)"):
        usable(run, resume=False, overwrite=True)
    with pytest.raises(RunFolderError, match="is a file"):
        usable(run / "recipe.yaml", resume=False, overwrite=False)


def test_overwriting_deletes_what_a_training_wrote_and_nothing_else(tmp_path):
    folder = TrainingFolder(tmp_path)
    begin(folder, {"seed": 0}, {folder.recipe: "", folder.tuned: ""}, resume=False)
    folder.model.mkdir()
    folder.result.write_text("{}")
    (tmp_path / "mine.txt").write_text("")
    begin(folder, {"seed": 1}, {folder.recipe: "seed: 1\n"}, resume=False)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"mine.txt", "recipe.yaml", "training.json"}
    assert folder.recipe.read_text() == "seed: 1\n"


def test_another_training_is_not_resumed(tmp_path):
    folder = TrainingFolder(tmp_path)
    begin(folder, {"seed": 0, "betas": (0.9, 0.95)}, {}, resume=False)
    begin(folder, {"seed": 0, "betas": (0.9, 0.95)}, {}, resume=True)
    with pytest.raises(RunFolderError, match=r"another training.*\n  seed: 0 then, 1 now$"):
        begin(folder, {"seed": 1, "betas": (0.9, 0.95)}, {}, resume=True)
