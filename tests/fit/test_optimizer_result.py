"""What is tuned of the optimizer, from a recipe to its artefact and to who follows it."""

import jax
import numpy as np
from recipes import CODE, tiny

from metatune.artefact import load, write
from metatune.fit.making import artefact_of
from metatune.inner import prepare
from metatune.recipe import schema
from metatune.train.schedules import Schedules

STEPS = 8
RECIPE = tiny(
    {"num_hidden_layers": 2},
    data={"domains": {"code": CODE}},
    inner={"optimizer": schema.AdamWSpec(learning_rate=0.003), "steps": STEPS},
    tune=schema.TuneSpec(
        optimizer=schema.OptimizerFieldsSpec(
            weight_decay=schema.WeightDecaySpec(per="layer", windows=2),
            b1=schema.TunedFieldSpec(windows=2),
            clip_norm=schema.TunedFieldSpec(),
        )
    ),
)


def test_the_artefact_holds_what_every_step_used_and_a_training_follows_it(tmp_path):
    training = prepare(RECIPE)
    start = training.initial_eta()
    assert {key: leaf.shape[0] for key, leaf in start.items()} == {
        "weight_decay": 2,
        "b1": 2,
        "clip_norm": 1,
    }
    keys = jax.random.split(jax.random.key(0), len(start))
    eta = {k: jax.random.normal(key, start[k].shape) for k, key in zip(start, keys, strict=True)}
    nothing = {"status": "unfinished", "outer_steps": 0, "best_outer_step": 0}
    found = load(write(tmp_path / "artefact", artefact_of(training, eta, nothing), "readme"))
    assert found.optimizer.schedules is not None
    assert found.optimizer.schedules.knots == (0.0, 0.5)
    segment = Schedules(training, found, STEPS).segment(0)
    whole = training.hyper_over(eta).optimizer
    for step in range(STEPS):
        used = jax.tree.map(lambda leaf, step=step: leaf[step], whole)
        at = found.optimizer_at(step, STEPS)
        assert used is not None and segment.hyper.optimizer is not None
        assert at["b1"] == float(used["b1"]) and at["clip_norm"] == float(used["clip_norm"])
        by_layer = used["weight_decay"]["model"]["layers"]["mlp"]["up_proj"]["weight"]
        name = "model.layers.1.mlp.up_proj.weight"
        assert at["weight_decay"][name] == float(by_layer[1, 0, 0])
        assert "model.norm.weight" not in at["weight_decay"]
        again = jax.tree.map(lambda leaf, step=step: leaf[step], segment.hyper.optimizer)
        assert jax.tree.structure(again) == jax.tree.structure(used)
        for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(used), strict=True):
            np.testing.assert_array_equal(np.broadcast_to(a, b.shape), b)
