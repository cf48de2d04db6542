"""Where its search begins, every tunable leaves the training as the recipe has it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metatune.models import ParameterNames
from metatune.recipe import schema
from metatune.tunables import ENTRIES, Hyper, Setting, Supply, TrainingTokens, build
from metatune.tunables.token_classes import PARTS

STEPS, TOKENS = 7, 6
NAMES = {
    "head": ParameterNames(("lm_head.weight",), stacked=False),
    "up": ParameterNames(
        tuple(f"model.layers.{i}.mlp.up_proj.weight" for i in range(2)), stacked=True
    ),
}
PARAMS = {"head": jnp.arange(6.0).reshape(3, 2), "up": jnp.arange(8.0).reshape(2, 2, 2)}
OPTIMIZER = schema.AdamWSpec(learning_rate=1e-3, eps=1e-7)
LOSS = schema.LossSpec(
    z_loss=1e-4, label_smoothing=0.1, multi_token_prediction=schema.SecondNextTokenSpec(weight=0.3)
)
SETTING = Setting(
    NAMES,
    ("code", "drama"),
    STEPS,
    PARAMS,
    tokens=TrainingTokens(PARTS, np.full((2, len(PARTS.names)), 100), (0.5, 0.5), False),
    supply=Supply((1000, 1000), 2000),
    optimizer=OPTIMIZER,
    decaying={**NAMES, "head": None},
    loss=LOSS,
    vocab_size=TOKENS,
    key=jax.random.key(1),
    seed_key=jax.random.key(2),
)
BASE = Hyper(
    {"head": jnp.full((1, 1), 0.5), "up": jnp.full((1, 1, 1), 0.5)},
    mixture=jnp.array([0.5, 0.5]),
    loss_weights=jnp.ones(2),
)
RATES, MIXTURE = schema.LearningRatesSpec, schema.MixtureSpec
# A row for each way to tune; a new tunable is a new row.
SPECS = {
    "learning_rates, global": RATES(per="global", windows=3),
    "learning_rates, tensor, linear": RATES(windows=3, interpolation="linear"),
    "learning_rates, bounded": RATES(per="layer", max_multiplier=2.0, prior=0.3, smoothness=0.1),
    "learning_rates, element": RATES(per="element", windows=2),
    "learning_rates, shared": RATES(windows=2, sharing=schema.SharingSpec()),
    "mixture": MIXTURE(windows=3, floor=0.1, kl=0.3, smoothness=0.2),
    "mixture, groups": MIXTURE(windows=2, groups={"all": ("code", "drama")}),
    "mixture, capped": MIXTURE(max_epochs=3.0, production_tokens=2000),
    "loss_weights, domain": schema.LossWeightsSpec(windows=3),
    "loss_weights, class": schema.LossWeightsSpec(per="class", windows=2),
    "optimizer": schema.OptimizerFieldsSpec(
        weight_decay=schema.WeightDecaySpec(per="layer", windows=2),
        **{name: schema.TunedFieldSpec(windows=2) for name in ("b1", "b2", "eps", "clip_norm")},
    ),
    "loss_terms": schema.LossTermsSpec(
        **{
            name: schema.TunedFieldSpec(windows=2)
            for name in ("z_loss", "label_smoothing", "multi_token_prediction")
        }
    ),
    "initialisation, point": schema.PointSpec(),
    "initialisation, interpolation": schema.InterpolationSpec(checkpoints=("a",)),
    "learned_update": schema.LearnedUpdateSpec(hidden_size=3),
    "rater, mlp": schema.MlpRaterSpec(hidden_size=4),
    "rater, transformer": schema.TransformerRaterSpec(hidden_size=4),
    "averaging": schema.AveragingSpec(windows=2, decay=0.8),
}


def same_everywhere(found, wanted):
    for leaf in jax.tree.leaves(found):
        np.testing.assert_array_equal(leaf, np.full_like(leaf, wanted))


def numbers_of_the_recipe(numbers):
    for name, found in numbers.items():
        same_everywhere(found, getattr(OPTIMIZER, name))


def coefficients_of_the_recipe(terms):
    for name, found in terms.items():
        np.testing.assert_array_equal(found, np.float32(LOSS.coefficients()[name]))


def factors_of_one(correction):
    """Of a network whose output is zero, whatever it sees."""
    same_everywhere(correction.networks.output, 0)


def decay_of_the_recipe(decay):
    """None after the first step, when there is nothing to average with."""
    assert decay in (0, np.float32(0.8))


def even_weights(rater):
    tokens = np.random.default_rng(0).integers(0, TOKENS, (4, 5))
    drawn = jnp.array([0.3, 1.7, 0.5, 1.5])
    same_everywhere(jax.jit(lambda rater: rater(tokens, None, drawn))(rater), 1)


AS_THE_RECIPE = {
    "learning_rate": lambda rates: same_everywhere(rates, 0.5),
    "mixture": lambda shares: same_everywhere(shares, 0.5),
    "loss_weights": lambda weights: same_everywhere(weights, 1),
    "class_weights": lambda weights: same_everywhere(weights, 1),
    "optimizer": numbers_of_the_recipe,
    "loss_terms": coefficients_of_the_recipe,
    "learned_update": factors_of_one,
    "rater": even_weights,
    "averaging": decay_of_the_recipe,
    "eps_scale": lambda scale: same_everywhere(scale, 1),
}
"""What each hyperparameter has to be, to the last bit."""


def tuned(row) -> Any:
    return build(schema.TuneSpec(**{row.split(",")[0]: SPECS[row]}), SETTING)


@pytest.mark.parametrize("row", SPECS)
def test_the_first_meta_parameters_change_nothing_and_cost_nothing(row):
    tunables = tuned(row)
    assert tunables

    @jax.jit
    def at(step):
        hyper = BASE
        for tunable, start in zip(tunables, starts, strict=True):
            hyper = tunable.apply(start, step, hyper)
        return hyper

    starts = [tunable.initial() for tunable in tunables]
    for step in (0, 3, STEPS - 1):
        hyper = at(jnp.int32(step))
        for field, found in hyper._asdict().items():
            if found is not None:
                AS_THE_RECIPE[field](found)
    for tunable in tunables:
        assert float(tunable.penalty(tunable.initial())) == pytest.approx(0, abs=1e-6)
        if hasattr(tunable, "begin"):
            others = [jax.tree.map(lambda leaf: leaf + 1, PARAMS)]
            begun = tunable.begin(tunable.initial(), PARAMS, others)
            jax.tree.map(np.testing.assert_array_equal, begun, PARAMS)


@pytest.mark.parametrize("row", SPECS)
def test_other_meta_parameters_change_something(row):
    """So that the test above can fail."""
    for tunable in tuned(row):
        random = np.random.default_rng(0).normal(size=tunable.initial().shape)
        moved = tunable.initial() + jnp.asarray(random, jnp.float32)
        after = jax.jit(tunable.apply)(moved, jnp.int32(3), BASE)
        begun = tunable.begin(moved, PARAMS, [PARAMS]) if row.endswith("point") else PARAMS
        if row.endswith("interpolation"):
            begun = tunable.begin(moved, PARAMS, [jax.tree.map(lambda leaf: leaf + 1, PARAMS)])
        with pytest.raises(AssertionError):
            jax.tree.map(np.testing.assert_array_equal, begun, PARAMS)
            for field, found in after._asdict().items():
                if found is not None:
                    AS_THE_RECIPE[field](found)


def test_every_tunable_and_every_hyperparameter_is_in_the_tables():
    assert (
        {row.split(",")[0] for row in SPECS} == set(ENTRIES) == {*schema.TuneSpec.__annotations__}
    )
    assert set(AS_THE_RECIPE) == set(Hyper._fields)
