"""What holds a mixture: floors, caps, groups, and the penalties of its distance and its changes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metatune.models import ParameterNames
from metatune.recipe import schema
from metatune.recipe.faults import RecipeError
from metatune.tunables import Hyper, Setting, Supply, TunableMixture, penalty
from metatune.tunables.mixture import build
from metatune.tunables.nested import Nested, nested
from metatune.tunables.simplex import capped_logits_of, capped_shares, shares

CAPS = (0.5, 0.9, 0.2, 1.0)
FLOOR = 0.05
BASE = Hyper({}, mixture=jnp.ones(4) / 4, loss_weights=jnp.ones(4))


def central(function, at, step=1e-6):
    """The Jacobian by central differences, [outputs, inputs]."""
    offsets = step * np.eye(len(at))
    sides = [(function(at + e) - function(at - e)) / (2 * step) for e in offsets]
    return np.stack(sides, axis=-1)


@jax.jit
def capped(logits):
    return capped_shares(logits, FLOOR, CAPS)


@pytest.mark.parametrize("spread", [0.1, 3.0, 30.0])
def test_capped_shares_are_shares_within_their_bounds(float64, spread):
    for logits in spread * np.random.default_rng(0).normal(size=(20, 4)):
        found = np.asarray(capped(jnp.asarray(logits)))
        assert found.sum() == pytest.approx(1, abs=1e-14)
        assert (found >= FLOOR - 1e-15).all() and (found <= np.add(CAPS, 1e-15)).all()
        # The definition, with a τ of one's own: the odds differ from the logits by the same.
        inside = (found - FLOOR) / (np.array(CAPS) - FLOOR)
        free = (inside > 1e-9) & (inside < 1 - 1e-9)
        shift = np.log(inside[free]) - np.log1p(-inside[free]) - logits[free]
        np.testing.assert_allclose(shift, shift[:1].repeat(len(shift)), atol=1e-5)


def test_capped_shares_sum_to_one_in_float32_too():
    for logits in 5 * np.random.default_rng(1).normal(size=(20, 4)).astype(np.float32):
        assert float(jnp.sum(capped(jnp.asarray(logits)))) == pytest.approx(1, abs=5e-7)


def test_their_derivatives_are_those_of_differences_in_both_modes(float64):
    logits = jnp.asarray([1.0, -0.3, 0.4, 0.1])
    expected = central(capped, np.asarray(logits))
    for derive in (jax.jacrev, jax.jacfwd):
        np.testing.assert_allclose(derive(capped)(logits), expected, atol=1e-9)
    np.testing.assert_allclose(expected.sum(axis=0), 0, atol=1e-9)


@pytest.mark.parametrize("far", [60.0, 1000.0])
def test_at_the_ends_nothing_moves_and_everything_is_finite(far):
    logits = jnp.asarray([far, 0.0, far, -far])
    np.testing.assert_allclose(capped(logits), [0.5, 0.25, 0.2, 0.05], atol=2e-6)
    assert np.isfinite(jax.jacrev(capped)(logits)).all()
    two = jax.jacrev(lambda logits: capped_shares(logits, 0.0, (0.6, 0.6)))
    assert np.isfinite(two(jnp.asarray([far, -far]))).all()


def test_capped_logits_and_shares_are_inverse(float64):
    wanted = [0.2, 0.55, 0.1, 0.15]
    found = capped(capped_logits_of(wanted, FLOOR, CAPS).astype(float))
    np.testing.assert_allclose(found, wanted, atol=1e-7)  # logits are held in float32


def test_groups_share_and_their_members_share_theirs(float64):
    groups = nested({"web": ["a", "c"], "code": ["d"]}, ["a", "b", "c", "d"])
    assert groups is not None and groups.groups == ((0, 2), (3,), (1,))
    of_groups, of_members = np.array([0.3, -1.0, 0.5]), np.array([2.0, 1.0])
    found = shares(groups.logits(jnp.asarray(np.concatenate([of_groups, of_members]))))
    chosen = np.exp(of_groups) / np.exp(of_groups).sum()
    within = np.exp(of_members) / np.exp(of_members).sum()
    expected = [chosen[0] * within[0], chosen[2], chosen[0] * within[1], chosen[1]]
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    logits = jnp.asarray([0.1, 0.7, -2.0, 0.4])
    np.testing.assert_allclose(groups.logits(groups.coordinates(logits)), logits, atol=1e-12)


def mixture(**choices):
    start = choices.pop("start", (0.25, 0.45, 0.1, 0.2))
    return TunableMixture(start, windows=3, floor=FLOOR, steps=9, **choices)


@pytest.mark.parametrize("caps", [None, CAPS])
@pytest.mark.parametrize("groups", [None, Nested(((0, 1), (2, 3)))])
def test_every_mixture_starts_where_it_is_told_and_moves_within_its_bounds(caps, groups):
    tunable = mixture(caps=caps, nested=groups)
    eta = tunable.initial()
    assert eta.shape == (3, 4 if groups is None else 6)
    at_first = tunable.apply(eta, jnp.int32(0), BASE).mixture
    np.testing.assert_allclose(at_first, tunable.start, atol=1e-6)
    far = eta + 20 * jnp.sin(jnp.arange(eta.size, dtype=jnp.float32)).reshape(eta.shape)
    for step in (0, 4, 8):
        found = np.asarray(tunable.apply(far, jnp.int32(step), BASE).mixture)
        assert (found >= FLOOR - 1e-6).all() and (found <= np.add(caps or 1.0, 1e-6)).all()


def test_all_steps_of_a_window_have_the_very_same_shares():
    tunable = TunableMixture((0.25, 0.45, 0.1, 0.2), 2, FLOOR, 101, caps=CAPS)
    eta = tunable.initial() + jnp.asarray([[0.1, 0.7, -0.3, 0.2], [1.3, -0.9, 0.4, 0.0]])

    @jax.jit
    def over_steps(eta):
        return jax.vmap(lambda t: tunable.apply(eta, t, BASE).mixture)(jnp.arange(101))

    assert len(np.unique(np.asarray(over_steps(eta)), axis=0)) == 2


def test_the_shares_of_a_step_have_the_derivatives_of_their_window_in_both_modes(float64):
    tunable = mixture(caps=CAPS)
    eta = jnp.asarray(np.random.default_rng(3).normal(size=(3, 4)))

    def shares(eta):
        return tunable.apply(eta, jnp.int32(4), BASE).mixture

    for derive in (jax.jacrev, jax.jacfwd):
        found = np.asarray(derive(shares)(eta))
        np.testing.assert_allclose(found[:, 1], jax.jacrev(capped)(eta[1]), atol=1e-12)
        np.testing.assert_array_equal(found[:, [0, 2]], 0)


def test_the_penalties_are_those_of_the_definitions_with_their_gradients(float64):
    prior = (0.4, 0.3, 0.2, 0.1)
    tunable = mixture(caps=CAPS, prior=prior, kl=0.7, smoothness=2.0)
    eta = np.random.default_rng(2).normal(size=(3, 4))
    rows = np.stack([capped(jnp.asarray(row)) for row in eta])
    divergence = np.sum(rows * np.log(rows / prior), axis=1).mean()
    changes = np.sum((rows[1:] - rows[:-1]) ** 2, axis=1).mean()
    assert float(tunable.penalty(jnp.asarray(eta))) == pytest.approx(
        0.7 * divergence + 2.0 * changes, rel=1e-12
    )

    def flat(coordinates):
        return np.asarray(tunable.penalty(jnp.asarray(coordinates).reshape(3, 4)))

    found = jax.grad(tunable.penalty)(jnp.asarray(eta))
    np.testing.assert_allclose(np.ravel(found), central(flat, eta.ravel()), atol=1e-8)


def test_at_the_prior_there_is_no_penalty_and_a_vanished_share_has_a_finite_one():
    tunable = mixture(start=(0.25,) * 4, prior=(0.25,) * 4, kl=1.0)
    assert float(tunable.penalty(tunable.initial())) == pytest.approx(0, abs=1e-6)
    gone = TunableMixture((0.5, 0.5), windows=1, floor=0.0, steps=1, prior=(0.5, 0.5), kl=1.0)
    value, slope = jax.value_and_grad(gone.penalty)(jnp.asarray([[200.0, -200.0]]))
    assert float(value) == pytest.approx(np.log(2), rel=1e-5)
    np.testing.assert_array_equal(slope, 0)
    assert float(mixture().penalty(mixture().initial())) == 0


def test_the_penalties_of_all_tunables_add_up(float64):
    one = mixture(prior=(0.4, 0.3, 0.2, 0.1), kl=0.7, key="one")
    two, free = mixture(smoothness=2.0, key="two"), mixture(key="free")
    rng = np.random.default_rng(4)
    eta = {key: jnp.asarray(rng.normal(size=(3, 4))) for key in ("one", "two", "free")}
    expected = float(one.penalty(eta["one"]) + two.penalty(eta["two"]))
    assert float(penalty([one, two, free], eta)) == pytest.approx(expected, rel=1e-12)
    assert expected > 0.1
    slopes = jax.grad(lambda eta: penalty([one, two, free], eta))(eta)
    np.testing.assert_allclose(slopes["two"], jax.grad(two.penalty)(eta["two"]), rtol=1e-12)
    np.testing.assert_array_equal(slopes["free"], 0)


NAMES = {"head": ParameterNames(("head.weight",), stacked=False)}


def built(supply=None, **spec):
    supply = supply or Supply(tokens=(300, 2000), horizon=1000)
    tunable = build(schema.MixtureSpec(**spec), Setting(NAMES, ("a", "b"), 10, supply=supply))
    assert tunable is not None
    return tunable


def test_caps_are_the_shares_that_read_a_domain_so_often():
    assert built(max_epochs=2).caps == (0.6, 1.0)
    assert built(max_epochs=4, production_tokens=2000).caps == (0.6, 1.0)
    assert built(max_epochs=2, available_tokens={"b": 350}).caps == (0.6, 0.7)
    assert built(max_epochs=4).caps is None  # none that could be exceeded
    before = Setting(NAMES, ("a", "b"), 10)
    assert build(schema.MixtureSpec(max_epochs=2), before) is None


def test_what_caps_contradict_is_refused_together():
    with pytest.raises(RecipeError) as caught:
        built(max_epochs=1, kl=0.1, prior={"a": 2.0, "b": 3.0})
    assert [str(fault) for fault in caught.value.faults] == [
        "tune.mixture.initial.a = 0.5: max_epochs caps this domain's share at 0.3, but the search "
        "starts at 0.5; write an initial share below the cap for each domain, or raise max_epochs",
        "tune.mixture.prior.a = 2.0: max_epochs caps this domain's share at 0.3, but the prior "
        "draws it to 0.4; lower it in the prior, or raise max_epochs",
    ]
    with pytest.raises(RecipeError, match="floor = 0.4: max_epochs caps .* at 0.3, at or below"):
        built(max_epochs=1, floor=0.4)
    with pytest.raises(RecipeError, match=r"max_epochs = 0.2: .*\(a 0.06, b 0.4\): no mixture is"):
        built(max_epochs=0.2)
