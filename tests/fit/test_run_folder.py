"""A run's folder is never overwritten silently, and never half-written."""

import dataclasses

import pytest
import yaml

from metatune.fit.run_folder import RunFolder, RunFolderError, open_run
from metatune.recipe import schema, writing
from metatune.recipe.faults import RecipeError
from metatune.runs.kinds import RUN

RECIPE = schema.Recipe(
    model=schema.ModelSpec(config={"model_type": "llama"}),
    data=schema.DataSpec(
        domains={"code": schema.SourceSpec(shipped="code_stdlib")},
        target={"code": 1.0},
        sequence_length=16,
        batch_size=4,
    ),
    inner=schema.InnerSpec(optimizer=schema.AdamWSpec(learning_rate=3e-3), steps=50),
    tune=schema.TuneSpec(learning_rates=schema.LearningRatesSpec(per="global")),
    outer=schema.OuterSpec(steps=1),
)
OUTER = schema.OuterSpec(steps=6, patience=2, test=schema.FinalTestSpec(seeds=2))
FRESH = {"resume": False, "overwrite": False}
RESUME = {"resume": True, "overwrite": False}


def begin(path, recipe=RECIPE, options=FRESH):
    with open_run(path, recipe, {}, **options):
        return RunFolder(path)


def grown(**changes):
    return dataclasses.replace(RECIPE, outer=dataclasses.replace(OUTER, **changes))


def test_a_new_folder_gets_the_recipe(tmp_path):
    folder = begin(tmp_path / "a" / "run")
    assert RUN.holds(folder.path)
    assert "shipped: code_stdlib" in folder.recipe.read_text()


def test_resuming_needs_a_run_of_the_same_recipe(tmp_path):
    begin(tmp_path)
    other = dataclasses.replace(RECIPE, seed=1, outer=schema.OuterSpec(steps=7, clip_norm=7.0))
    with pytest.raises(RunFolderError, match="another recipe.*outer.steps .* may grow") as refused:
        begin(tmp_path, other, RESUME)
    assert "seed: 0 then, 1 now" in str(refused.value)
    assert "outer.clip_norm: 1.0 then, 7.0 now" in str(refused.value)
    assert "outer.steps" not in str(refused.value).split("\n", 1)[1]


@pytest.mark.parametrize(
    ("field", "more"),
    [
        ("outer.steps", {"steps": 9}),
        ("outer.patience", {"patience": 5}),
        ("outer.patience", {"patience": None}),
        ("outer.test.seeds", {"test": schema.FinalTestSpec(seeds=4)}),
    ],
)
def test_what_ends_a_run_may_grow_and_not_shrink(tmp_path, field, more):
    folder, longer = begin(tmp_path, grown()), grown(**more)
    begin(tmp_path, longer, RESUME)
    assert folder.recipe.read_text() == writing.to_yaml(longer)
    with pytest.raises(RunFolderError, match="another recipe") as refused:
        begin(tmp_path, grown(), RESUME)
    assert [line.split(":")[0].strip() for line in str(refused.value).splitlines()[1:]] == [field]


def test_a_run_of_then_is_refused_with_the_new_names(tmp_path):
    folder = begin(tmp_path)
    tree = yaml.safe_load(folder.recipe.read_text())
    tree["outer"]["estimator"] = {"kind": "external", "command": "train"}
    folder.recipe.write_text(yaml.safe_dump(tree))
    with pytest.raises(RecipeError, match="estimator.kind = 'external': has moved to trainer"):
        begin(tmp_path, RECIPE, RESUME)
    with pytest.raises(RecipeError, match="estimator.kind = 'external': has moved to trainer"):
        folder.outer()


def test_of_phases_the_last_may_grow(tmp_path):
    def phases(*steps):
        return grown(steps=None, phases=tuple(schema.PhaseSpec(count) for count in steps))

    begin(tmp_path, phases(2, 2))
    begin(tmp_path, phases(2, 3), RESUME)
    with pytest.raises(RunFolderError, match=r"phases\[0\].steps: 2 then, 3 now"):
        begin(tmp_path, phases(3, 3), RESUME)
    with pytest.raises(RunFolderError, match=r"phases\[2\]"):
        begin(tmp_path, phases(2, 3, 4), RESUME)


def test_a_recipe_that_was_damaged_is_named(tmp_path):
    folder = begin(tmp_path)
    folder.recipe.write_text("model: {config: [")
    with pytest.raises(RunFolderError, match="recipe.yaml: is damaged"):
        begin(tmp_path, RECIPE, RESUME)


def test_logs_are_mended(tmp_path):
    folder = begin(tmp_path)
    for log in (folder.metrics, folder.commands):
        log.write_text('{"step": 0}\n{"step": 1, "lo')
    begin(tmp_path, RECIPE, RESUME)
    for log in (folder.metrics, folder.commands):
        assert log.read_text() == '{"step": 0}\n'


def test_metrics_survive_a_line_cut_off_by_a_kill(tmp_path):
    folder = RunFolder(tmp_path)
    for step in range(3):
        folder.append_metrics({"step": step})
    with folder.metrics.open("a") as file:
        file.write('{"step": 3, "obj')
    assert [line["step"] for line in folder.read_metrics()] == [0, 1, 2]
    folder.forget_metrics_from(2)
    assert [line["step"] for line in folder.read_metrics()] == [0, 1]
