"""What makes a training smoother, and what it costs."""

import dataclasses
import math

import pytest
from recipes import prepared, tiny
from rich.console import Console

from metatune.check import Settings
from metatune.check.recipes import subject_of
from metatune.check.smoother import AS_IT_IS, Tried, advice, as_json, changes, tried
from metatune.check.subject import sample
from metatune.recipe import schema
from metatune.report import smoother as tables


def at(**optimizer):
    return tiny(inner={"optimizer": schema.AdamWSpec(learning_rate=1e-2, **optimizer)})


def test_changes_are_those_that_a_recipe_has_fields_for_and_not_yet():
    cosine = schema.CosineSpec(warmup=0.1)
    recipe = at(eps_root=1e-9, eps=1e-5, schedule=cosine)
    found = dict(changes(recipe))
    assert list(found) == [
        AS_IT_IS,
        "inner.optimizer.eps_root=1e-08",
        "inner.optimizer.eps_root=1e-06",
        "inner.optimizer.eps=0.0001",
        "inner.optimizer.schedule.warmup=0.2",
    ]
    assert found[AS_IT_IS] == recipe
    longer = dataclasses.replace(cosine, warmup=0.2)
    assert found["inner.optimizer.schedule.warmup=0.2"] == at(
        eps_root=1e-9, eps=1e-5, schedule=longer
    )
    descent = tiny(inner={"optimizer": schema.SGDSpec(learning_rate=1e-2)})
    assert all(change == AS_IT_IS or "warmup" in change for change, _ in changes(descent))


def test_a_decay_leaves_room_for_a_warmup():
    stable = schema.WarmupStableDecaySpec(warmup=0.05, decay=0.85)
    found = dict(changes(at(schedule=stable)))
    assert "inner.optimizer.schedule.warmup=0.1" in found
    assert "inner.optimizer.schedule.warmup=0.2" not in found


ROUGH = Tried(AS_IT_IS, (2.0, 2.2), 300.0, -0.1)
ROOT = Tried("inner.optimizer.eps_root=1e-08", (2.1, 2.2), 3.0, 0.9)
WARMUP = Tried("inner.optimizer.schedule.warmup=0.2", (2.0, 2.1), 2.0, 0.4)


def test_the_smooth_one_of_the_least_loss_is_advised():
    worse = Tried("inner.optimizer.eps_root=1e-06", (2.4, 2.2), 1.0, 1.0)
    assert advice((ROUGH, worse, ROOT, WARMUP)) == ROOT
    assert advice((ROUGH._replace(growth=2.0, left=0.6), ROOT)) is not ROOT
    assert advice((ROUGH, WARMUP)) is None  # 40 % of the derivative are left: rough


def test_what_diverges_is_told_and_never_advised():
    away = Tried("inner.optimizer.eps=0.0001", (2.0, math.inf), 1.0, 1.0)
    lost = Tried("inner.optimizer.eps=1e-06", (2.0, 2.1), math.inf, math.nan)
    document = as_json((ROUGH, away, lost))
    assert document["advice"] is None
    assert document["tried"][1]["losses"] == [2.0, None]
    assert (document["tried"][2]["growth"], document["tried"][2]["left"]) == (None, None)
    console = Console(record=True, width=100)
    console.print(tables.table(document))
    assert "diverges" in console.export_text()


def test_differences_are_of_pairs_with_the_interval_of_student():
    # Differences 0.1, 0, 0.1: mean 1/15, standard error 1/30; t of 2 is 4.3027.
    assert tables.more([1.1, 1.2, 1.3], [1.0, 1.2, 1.2]) == "+0.0667 ± 0.1434"


@pytest.fixture(scope="module")
def recipe():
    """One that no change is left for."""
    return at(eps_root=1e-6, eps=1e-4, schedule=schema.CosineSpec(warmup=0.2))


def test_the_numbers_are_those_of_the_recipes_own_training(recipe, tmp_path):
    console = Console(record=True, width=100)
    (found,) = tried(recipe, prepared, Settings(2, 1), scratch=tmp_path, console=console)
    subject = subject_of(prepared(recipe), tmp_path)
    samples = [sample(subject, subject.draw(seed), "") for seed in range(2)]
    assert found.losses == pytest.approx([each.value for each in samples], rel=1e-6)
    assert found.growth == max(samples[0].grown)
    assert "as long as 7 trainings" in console.export_text()
    console.print(tables.table(as_json((found,))))
    assert "it is smooth as it is" in console.export_text()
