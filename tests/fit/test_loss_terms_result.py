"""What is tuned of the loss, from a recipe to its artefact and to who follows it."""

import jax
import jax.numpy as jnp
import numpy as np
from recipes import CODE, tiny

from metatune.artefact import load, write
from metatune.fit.making import artefact_of
from metatune.inner import prepare
from metatune.recipe import schema
from metatune.train import matching
from metatune.train.schedules import Schedules

STEPS = 4
RECIPE = tiny(
    data={"domains": {"code": CODE}},
    inner={
        "optimizer": schema.AdamWSpec(learning_rate=0.003),
        "steps": STEPS,
        "loss": schema.LossSpec(z_loss=0.001, label_smoothing=0.1),
    },
    tune=schema.TuneSpec(
        optimizer=schema.OptimizerFieldsSpec(b2=schema.TunedFieldSpec()),
        loss_terms=schema.LossTermsSpec(label_smoothing=schema.TunedFieldSpec(windows=2)),
    ),
)


def test_the_artefact_holds_what_every_step_used_and_a_training_follows_it(tmp_path):
    training = prepare(RECIPE)
    eta = {"b2": jnp.array([[0.3]]), "label_smoothing": jnp.array([0.7, -0.4])}
    nothing = {"outer_steps": 0, "best_outer_step": 0}
    found = load(write(tmp_path / "artefact", artefact_of(training, eta, nothing), "readme"))
    assert found.loss_terms is not None
    assert (found.loss_terms.knots, found.loss_terms.tuned) == ((0.0, 0.5), ("label_smoothing",))
    used = training.hyper_over(eta).loss_terms
    assert used is not None
    # A recipe of another loss: what was tuned takes the place of its own, the rest is said.
    loss = schema.LossSpec(z_loss=2e-3, label_smoothing=0.3)
    rates = schema.TuneSpec(learning_rates=schema.LearningRatesSpec(per="global"))
    inner = schema.InnerSpec(RECIPE.inner.optimizer, steps=STEPS, loss=loss)
    other = prepare(schema.Recipe(RECIPE.model, RECIPE.data, inner, rates, RECIPE.outer))
    matching.refuse_misfit(found, other, "mine")
    assert [line for line in matching.remarks(found, other) if "in the loss" in line] == [
        "warning: the artefact was tuned with z_loss 0.001 in the loss; the recipe's 0.002 is used"
    ]
    terms = Schedules(other, found, STEPS).segment(0).hyper.loss_terms
    assert terms is not None
    np.testing.assert_array_equal(terms["label_smoothing"], used["label_smoothing"])
    np.testing.assert_array_equal(terms["z_loss"], np.full(STEPS, np.float32(2e-3)))
    for step in range(STEPS):
        at = found.loss_terms_at(step, STEPS)
        assert at == {key: float(row[step]) for key, row in used.items()}
    assert jax.tree.structure(terms) == jax.tree.structure(used)
