"""Optimizers side by side: each does to its parameters what it does alone."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from recipes import tiny

from metatune.fit.making import artefact_of
from metatune.inner import optimizers, prepare
from metatune.models import ParameterNames
from metatune.recipe import schema
from metatune.recipe.faults import RecipeError
from metatune.train.following import Steps, followed
from metatune.tunables import Hyper
from metatune.tunables.optimizer_groups import assigned, per_leaf
from metatune.verdict.points import Plain
from metatune.verdict.schedules import rates as plain_rates

STEPS = 4
NAMES = {
    "embed": ParameterNames(("embed.weight",), stacked=False),
    "layers": {
        "up": ParameterNames(("layers.0.up.weight", "layers.1.up.weight"), stacked=True),
        "norm": ParameterNames(("layers.0.norm.weight", "layers.1.norm.weight"), stacked=True),
    },
    "lm_head": {"weight": ParameterNames(("lm_head.weight",), stacked=False)},
}
SHAPES = {
    "embed": (5, 4),
    "layers": {"up": (2, 6, 4), "norm": (2, 4)},
    "lm_head": {"weight": (5, 4)},
}


def drawn(seed) -> Any:
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda shape: jnp.asarray(rng.normal(size=shape), jnp.result_type(float)),
        SHAPES,
        is_leaf=lambda node: isinstance(node, tuple),
    )


def trained(spec, rates) -> Any:
    """The parameters after some updates, at these rates."""
    built = optimizers.build(spec, NAMES)
    params = drawn(0)
    wide = jax.tree.map(lambda rate, p: jnp.full((1,) * p.ndim, rate, p.dtype), rates, params)
    state, update = built.init(params), jax.jit(built.update)
    for step in range(1, STEPS + 1):
        params, state = update(drawn(step), state, params, Hyper(wide, jnp.ones(1), jnp.ones(1)))
    return params


SINGLE = {
    schema.AdamWGroupSpec: schema.AdamWSpec,
    schema.SGDGroupSpec: schema.SGDSpec,
    schema.LionGroupSpec: schema.LionSpec,
    schema.MuonGroupSpec: schema.MuonSpec,
    schema.AdafactorGroupSpec: schema.AdafactorSpec,
    schema.AdoptGroupSpec: schema.AdoptSpec,
    schema.AdamHGroupSpec: schema.AdamHSpec,
    schema.MuonHGroupSpec: schema.MuonHSpec,
    schema.SoapGroupSpec: schema.SoapSpec,
    schema.NorMuonGroupSpec: schema.NorMuonSpec,
}


@pytest.mark.parametrize("kind", SINGLE, ids=lambda kind: kind.kind)
def test_one_group_is_the_optimizer_itself_to_the_bit(kind):
    """Every kind but schedule-free has a group."""
    assert {*SINGLE.values(), schema.ScheduleFreeAdamWSpec} == {
        *schema.SingleOptimizerSpec.__args__
    }
    group, alone = kind(0.1, weight_decay=0.1), SINGLE[kind](0.1, weight_decay=0.1, clip_norm=2.0)
    assert group.alone == SINGLE[kind](0.1, weight_decay=0.1, clip_norm=None)
    rates = jax.tree.map(lambda _: 0.1, NAMES)
    found = trained(schema.GroupsSpec((group,), clip_norm=2.0), rates)
    for ours, theirs in zip(*map(jax.tree.leaves, (found, trained(alone, rates))), strict=True):
        np.testing.assert_array_equal(ours, theirs)


GROUPS = schema.GroupsSpec(
    groups=(
        schema.MuonGroupSpec(0.02, match=r"layers.*up", momentum=0.8, eps=1e-3, weight_decay=0.3),
        schema.SGDGroupSpec(0.05, match="embed", momentum=0.7, weight_decay=0.2),
        schema.AdamWGroupSpec(0.003, b1=0.6, b2=0.7, eps=1e-2, weight_decay=0.1, decay="all"),
    ),
    clip_norm=2.0,
)


def of_optax():
    """The same by `optax.multi_transform`, of tensors that aren't stacked, under their names."""
    axes = optax.contrib.MuonDimensionNumbers(reduction_axis=1, output_axis=0)
    muon = optax.chain(
        optax.contrib.scale_by_muon(
            beta=0.8,
            eps=1e-3,
            weight_dimension_numbers=lambda tree: jax.tree.map(lambda _: axes, tree),
        ),
        optax.scale(np.sqrt(6 / 4)),
        optax.add_decayed_weights(0.3),
        optax.scale(-0.02),
    )
    sgd = optax.chain(optax.add_decayed_weights(0.2), optax.sgd(0.05, momentum=0.7))
    adam = optax.adamw(0.003, b1=0.6, b2=0.7, eps=1e-2, eps_root=1e-12, weight_decay=0.1)

    def label(name):
        return "muon" if "up" in name else "sgd" if "embed" in name else "adam"

    each = optax.multi_transform(
        {"muon": muon, "sgd": sgd, "adam": adam}, lambda tree: {name: label(name) for name in tree}
    )
    return optax.chain(optax.clip_by_global_norm(2.0), each)


def by_name(tree) -> dict[str, Any]:
    found = {}
    for leaf, value in zip(jax.tree.leaves(NAMES), jax.tree.leaves(tree), strict=True):
        parts = value if leaf.stacked else [value]
        found |= dict(zip(leaf.names, parts, strict=True))
    return found


def test_several_are_those_of_optax_side_by_side(float64):
    found = by_name(trained(GROUPS, per_leaf(GROUPS, NAMES, "learning_rate")))
    theirs = of_optax()
    params: Any = by_name(drawn(0))
    state, update = theirs.init(params), jax.jit(theirs.update)
    for step in range(1, STEPS + 1):
        updates, state = update(by_name(drawn(step)), state, params)
        params = optax.apply_updates(params, updates)
    for name, want in params.items():
        np.testing.assert_allclose(found[name], want, rtol=1e-12, err_msg=name)


def test_what_decays_is_said_by_each_group():
    decaying = optimizers.decayed(GROUPS, NAMES, drawn(0))
    assert set(decaying) == {name for leaf in jax.tree.leaves(NAMES) for name in leaf.names}
    first, _, third = GROUPS.groups
    still = schema.GroupsSpec((first, schema.SGDGroupSpec(0.05, match="embed"), third))
    assert set(decaying) - set(optimizers.decayed(still, NAMES, drawn(0))) == {"embed.weight"}


def test_it_says_what_each_optimizer_treats_in_its_own_way():
    head = schema.MuonHGroupSpec(0.1, match="up|lm_head")
    groups = schema.GroupsSpec((head, schema.AdamWGroupSpec(0.1)))
    ups = ("layers.0.up.weight", "layers.1.up.weight")
    assert optimizers.members(groups, NAMES, drawn(0)) == (
        {
            "parameters": (*ups, "lm_head.weight"),
            "orthogonal": ups,
            "inputs_first": (),
            "turned": (*ups, "lm_head.weight"),
        },
        {"parameters": ("embed.weight", "layers.0.norm.weight", "layers.1.norm.weight")},
    )
    assert optimizers.members(schema.MuonSpec(0.1), NAMES, drawn(0)) == ()


@pytest.mark.parametrize(
    ("matches", "fault"),
    [
        (
            ("up", "embed"),
            "inner.optimizer.groups = ['up', 'embed']: none matches layers.0.norm.weight, "
            "layers.1.norm.weight, lm_head.weight; add a group without match as the last: it "
            "takes all that are left",
        ),
        (
            ("weight", "up", None),
            "inner.optimizer.groups[1].match = 'up': matches no parameter that an earlier "
            "expression hasn't taken; match the model's checkpoint names, such as embed.weight, "
            "layers.0.norm.weight, lm_head.weight",
        ),
        (
            ("", None),
            "inner.optimizer.groups[1].match = None: takes what groups before it leave, and they "
            "leave nothing; take this group out, or write narrower expressions before it",
        ),
        (
            (r"layers\.0", None),
            "inner.optimizer.groups = ['layers.0.norm.weight', 'layers.1.norm.weight']: groups[0] "
            "takes layers.0.norm.weight and groups[1] layers.1.norm.weight: the layers of a tensor "
            "are trained by one optimizer; match all layers; tune.learning_rates tells their rates "
            "apart",
        ),
    ],
)
def test_every_parameter_is_of_one_group(matches, fault):
    groups = tuple(schema.AdamWGroupSpec(0.1, match=match) for match in matches)
    with pytest.raises(RecipeError) as refused:
        assigned(schema.GroupsSpec(groups), NAMES)
    assert str(refused.value.faults[0]) == fault


def test_each_group_has_its_base_rate_and_an_artefact_of_it_is_followed():
    """The numbers of groups pass from η to the artefact and from there to λ, under their names."""
    groups = schema.GroupsSpec(
        (
            schema.MuonGroupSpec(0.02, match=r"layers\..*_proj", momentum=0.9),
            schema.AdamWGroupSpec(0.003, b1=0.8, weight_decay=0.0),
        ),
        schedule=schema.ConstantSpec(),
    )
    fields = schema.OptimizerFieldsSpec(
        weight_decay=schema.WeightDecaySpec(),
        momentum=schema.TunedFieldSpec(),
        b1=schema.TunedFieldSpec(2),
    )
    rates = schema.LearningRatesSpec(per="global")
    training = prepare(
        tiny(
            inner={"optimizer": groups, "steps": 4},
            tune={"optimizer": fields, "learning_rates": rates, "mixture": None},
        )
    )
    names = [name for leaf in jax.tree.leaves(training.names) for name in leaf.names]
    peaks = {name: 0.02 if "_proj" in name else 0.003 for name in names}
    assert training.peaks() == peaks
    eta = {
        key: value + 0.1 * (1 + jnp.arange(value.size, dtype=value.dtype).reshape(value.shape))
        for key, value in training.initial_eta().items()
    }
    assert {key: value.shape for key, value in eta.items()} == {
        "learning_rates": (1, 1),
        "weight_decay": (1, 1),
        "momentum": (1, 1),
        "b1": (2, 1),
    }
    made = artefact_of(training, eta, {})
    curves = made.learning_rates.parameters
    for name, curve in curves.items():
        np.testing.assert_allclose(curve, peaks[name] * np.exp(0.1), rtol=1e-6)
    assert made.optimizer.kinds == ("muon", "adamw")
    assert set(made.optimizer.decayed) == {name for name in names if "_proj" in name}
    schedules = made.optimizer.schedules
    assert schedules is not None and schedules.weight_decay is not None
    assert set(schedules.values) == {
        "groups[0].momentum",
        "groups[1].b1",
    }  # nothing of the first is AdamW's
    odds = 0.8 / 0.2 * np.exp([0.1, 0.2])  # of each window
    np.testing.assert_allclose(schedules.values["groups[1].b1"], odds / (1 + odds), rtol=1e-6)
    for curve in schedules.weight_decay.values():
        np.testing.assert_allclose(curve, 0.1 * np.exp(0.1), rtol=1e-6)
    want, plain = training.hyper_over(eta), training.hyper_over(training.initial_eta())
    found = followed(made, Steps(training, training.shapes().params, range(4)), plain)
    pairs = zip(
        *(jax.tree.leaves((h.optimizer, h.learning_rate)) for h in (found, want)), strict=True
    )
    for ours, theirs in pairs:
        shape = np.broadcast_shapes(ours.shape, theirs.shape)
        np.testing.assert_allclose(
            np.broadcast_to(ours, shape), np.broadcast_to(theirs, shape), rtol=1e-6
        )
    # A contest scales all of them alike.
    default = artefact_of(training, training.initial_eta(), {})
    half = plain_rates(training, default, Plain(rate=0.5))
    for name, curve in half.parameters.items():
        np.testing.assert_allclose(curve, 0.5 * peaks[name], rtol=1e-9)
