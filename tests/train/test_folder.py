"""What of a training must stay the same, and what was written of it."""

import pytest

from metatune.fit.run_folder import RunFolderError
from metatune.recipe.faults import RecipeError
from metatune.train.folder import TrainingFolder, open_training

FRESH = {"resume": False, "overwrite": False}
RESUME = {"resume": True, "overwrite": False}
SETTINGS = {"seed": 0, "betas": (0.9, 0.95)}


def begin(path, settings, options=FRESH):
    folder = TrainingFolder(path)
    with open_training(folder, settings, {"recipe.yaml": "seed: 0\n"}, {}, **options):
        return folder


def test_another_training_is_not_resumed(tmp_path):
    folder = begin(tmp_path, SETTINGS)
    assert folder.recipe.read_text() == "seed: 0\n"
    begin(tmp_path, SETTINGS, RESUME)
    with pytest.raises(RunFolderError, match=r"another training.*\n  seed: 0 then, 1 now$"):
        begin(tmp_path, {**SETTINGS, "seed": 1}, RESUME)


def test_settings_of_then_are_refused_with_the_new_names(tmp_path):
    begin(tmp_path, {"seed": 0, "outer.judge.every": 2, "outer.estimator.kind": "external"})
    with pytest.raises(RecipeError) as refused:
        begin(tmp_path, {"seed": 0}, RESUME)
    assert [str(fault).split(", because")[0] for fault in refused.value.faults] == [
        "outer.judge.every = 2: has moved to outer.validation",
        "outer.estimator.kind = 'external': has moved to trainer",
    ]


def test_settings_that_were_cut_off_are_named(tmp_path):
    folder = begin(tmp_path, SETTINGS)
    folder.settings.write_text('{"format": "metatune-tr')
    with pytest.raises(RunFolderError, match="training.json: is damaged .*begin anew"):
        begin(tmp_path, SETTINGS, RESUME)


def test_a_line_of_metrics_that_was_cut_off_is_mended(tmp_path):
    folder = begin(tmp_path, SETTINGS)
    folder.metrics.write_text('{"step": 1}\n{"step": 2, "lo')
    begin(tmp_path, SETTINGS, RESUME)
    assert folder.metrics.read_text() == '{"step": 1}\n'
