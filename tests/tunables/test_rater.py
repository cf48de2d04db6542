"""The rater of sequences: its weights, and its hypergradients against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metatune.hypergrad import MixFlow, Problem, Reverse, State, hypergradient
from metatune.recipe import schema
from metatune.recipe.faults import RecipeError
from metatune.tunables import Hyper, Rating, Setting, rater
from metatune.tunables.rating import held

TOKENS, LENGTH, STEPS = 6, 5, 2
SPECS = (
    schema.MlpRaterSpec(hidden_size=4, temperature=0.7),
    schema.TransformerRaterSpec(hidden_size=4, temperature=0.7),
)
ROOM = Hyper(jnp.ones(()), jnp.ones(1), jnp.ones(1))


def built(spec):
    setting = Setting({}, (), STEPS, vocab_size=TOKENS, key=jax.random.key(3))
    return rater.build(spec, setting)


def scored(tunable, eta, tokens, mask=None):
    """Scores, by one program: its operations would be as many."""
    rating = tunable.rating
    return np.asarray(
        jax.jit(lambda eta, mask: rating.scores(rating.unravelled(eta), tokens, mask))(eta, mask)
    )


def weighed(tunable, eta, tokens, drawn):
    """Weights, likewise."""
    return np.asarray(
        jax.jit(lambda eta: tunable.apply(eta, jnp.int32(0), ROOM).rater(tokens, None, drawn))(eta)
    )


def some_eta(tunable, seed=0):
    """In double precision, the last layer not zero."""
    random = np.random.default_rng(seed)
    return jnp.asarray(random.normal(size=tunable.initial().shape))


def sequences(seed, count=4):
    return np.random.default_rng(seed).integers(0, TOKENS, (count, LENGTH))


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.kind)
def test_it_begins_with_even_weights_to_the_last_bit(spec):
    tunable = built(spec)
    drawn = jnp.asarray([0.3, 1.7, 0.123, 1.877])
    np.testing.assert_array_equal(weighed(tunable, tunable.initial(), sequences(0), drawn), 1)
    # The numbers behind the last layer are random, the same for the same recipe.
    assert np.unique(tunable.initial()).size > tunable.initial().size / 2
    np.testing.assert_array_equal(tunable.initial(), built(spec).initial())


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.kind)
def test_weights_are_the_softmax_of_the_scores(spec, float64):
    tunable, tokens = built(spec), sequences(0)
    eta = some_eta(tunable)
    scores = scored(tunable, eta, tokens)
    assert np.ptp(scores) > 0.01
    want = np.exp(scores / 0.7)
    even = weighed(tunable, eta, tokens, jnp.ones(4))
    np.testing.assert_allclose(even, 4 * want / want.sum(), rtol=1e-12)
    # They average one over what the mixture draws, so that they can't stand in for a rate.
    drawn = jnp.asarray([0.3, 1.7, 0.5, 1.5])
    weights = weighed(tunable, eta, tokens, drawn)
    assert np.mean(drawn * weights) == pytest.approx(1, rel=1e-12)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.kind)
def test_what_does_not_count_has_no_part_in_a_score(spec, float64):
    tunable, tokens = built(spec), sequences(0)
    eta, mask = some_eta(tunable), np.ones((4, LENGTH - 1))
    everything = scored(tunable, eta, tokens)
    np.testing.assert_allclose(scored(tunable, eta, tokens, mask), everything, rtol=1e-12)
    mask[:, -1] = 0
    other = tokens.copy()
    other[:, -1] = (other[:, -1] + 1) % TOKENS
    masked = scored(tunable, eta, tokens, mask)
    np.testing.assert_array_equal(scored(tunable, eta, other, mask), masked)
    # What does count is seen, and in its order.
    assert not np.allclose(scored(tunable, eta, other), everything)
    assert not np.allclose(scored(tunable, eta, tokens[:, ::-1]), everything)


def test_parameters_are_one_array_and_come_back_by_name():
    tunable = built(schema.TransformerRaterSpec(hidden_size=4))
    rating = tunable.rating
    by_name = rating.by_name(rating.unravelled(tunable.initial()))
    assert {"own", "before", "mlp_norm_0.scale", "head.kernel"} < set(by_name)
    assert sum(leaf.size for leaf in by_name.values()) == tunable.initial().size
    assert not by_name["head.kernel"].any()


def losses(params, batch):
    """Of each sequence: how far an embedding's mean is from what is wanted."""
    means = params["embed"][batch["tokens"]].mean(axis=1)
    return jnp.mean((jnp.tanh(means @ params["matrix"]) - batch["wanted"]) ** 2, axis=1)


def problem_of(tunable):
    def loss(params, hyper, batch):
        weights = hyper.rater(batch["tokens"], None, jnp.ones(len(batch["tokens"])))
        return jnp.mean(weights * losses(params, batch))

    def update(grads, trace, params, hyper):
        trace = jax.tree.map(lambda m, g: 0.5 * m + g, trace, grads)
        return jax.tree.map(lambda p, m: p - 0.3 * m, params, trace), trace

    return Problem(
        loss,
        update,
        lambda params, batch: jnp.mean(losses(params, batch)),
        lambda eta, step: tunable.apply(eta, step, ROOM),
    )


def batch_of(step):
    random = np.random.default_rng(step)
    return {"tokens": sequences(step), "wanted": random.normal(size=(4, 3))}


def test_hypergradients_equal_central_differences(float64):
    tunable = built(SPECS[1])  # which has all that the other has
    random = np.random.default_rng(0)
    params = {
        "embed": jnp.asarray(random.normal(size=(TOKENS, 3))),
        "matrix": jnp.asarray(random.normal(size=(3, 3))),
    }
    state, problem = State(params, jax.tree.map(jnp.zeros_like, params)), problem_of(tunable)

    def estimate(eta, estimator):
        return hypergradient(
            problem, eta, state, batch_of, [batch_of(99)], steps=STEPS, estimator=estimator
        )

    eta, mixflow = some_eta(tunable, seed=1), MixFlow(segment=STEPS)
    found = np.asarray(estimate(eta, mixflow).gradient)
    reverse = np.asarray(estimate(eta, Reverse()).gradient)
    np.testing.assert_allclose(found, reverse, rtol=1e-9, atol=1e-12 * np.abs(found).max())
    for direction in random.normal(size=(2, *eta.shape)):
        sides = [float(estimate(eta + s * 1e-5 * direction, mixflow).value) for s in (1, -1)]
        assert np.vdot(found, direction) == pytest.approx((sides[0] - sides[1]) / 2e-5, rel=1e-5)


def test_noise_is_rated_down_as_the_closed_form_says(float64):
    """A number θ is fitted to y = 1 of clean sequences and to y around zero of noise.

    After one step at rate a from even weights, `dF/ds_i = a/(B T) (θ' - 1) (y_i - ȳ)`.
    """
    tunable = built(SPECS[0])
    rating, eta = tunable.rating, tunable.initial().astype(float)
    clean, count, rate = np.arange(8) % 2 == 0, 8, 0.4
    tokens = np.where(clean[:, None], sequences(0, 8) % 3, 3 + sequences(1, 8) % 3)
    wanted = np.where(clean, 1.0, np.random.default_rng(0).normal(scale=0.1, size=8))

    def loss(theta, hyper, batch):
        weights = hyper.rater(batch, None, jnp.ones(count))
        return jnp.mean(weights * (theta - wanted) ** 2 / 2)

    problem = Problem(
        loss,
        lambda grad, state, theta, hyper: (theta - rate * grad, state),
        lambda theta, batch: (theta - 1) ** 2 / 2,
        lambda eta, step: tunable.apply(eta, step, ROOM),
    )
    found = hypergradient(
        problem,
        eta,
        State(jnp.zeros(()), ()),
        lambda step: tokens,
        [tokens],
        steps=1,
        estimator=MixFlow(segment=1),
    ).gradient
    after = rate * wanted.mean()
    of_scores = rate / (count * 0.7) * (after - 1) * (wanted - wanted.mean())
    assert (of_scores[clean] < 0).all()
    assert (of_scores[~clean] > 0).all()  # against it the search rates noise down

    @jax.jit
    def pulled(eta):
        _, pull = jax.vjp(lambda eta: rating.scores(rating.unravelled(eta), tokens), eta)
        return pull(jnp.asarray(of_scores))[0]

    np.testing.assert_allclose(found, pulled(eta), rtol=1e-9, atol=1e-15)
    moved = scored(tunable, eta - found, tokens)
    assert moved[clean].mean() > moved[~clean].mean()


def test_it_must_know_what_it_reads():
    with pytest.raises(ValueError, match="needs to know the vocabulary"):
        rater.build(SPECS[0], Setting({}, (), STEPS))


def test_a_rating_is_made_of_the_names_of_its_parameters():

    tunable = built(SPECS[0])
    rating = tunable.rating
    params = rating.unravelled(tunable.initial())
    settings = {**vars(SPECS[0]), "vocab_size": TOKENS, "sequence_length": LENGTH}
    again, read = held(settings, rating.by_name(params))
    assert isinstance(again, Rating)
    assert jax.tree.all(jax.tree.map(np.array_equal, read, params))
    with pytest.raises(RecipeError, match="rater.shapes = .*: must be"):
        held({**settings, "hidden_size": 6}, rating.by_name(params))
