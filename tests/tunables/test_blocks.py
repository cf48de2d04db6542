"""Blocks of meta-parameters, and how the adjoint grew behind each."""

import jax.numpy as jnp
import numpy as np
import pytest
from recipes import tiny

from metatune.check.levels import CHAOS
from metatune.check.runs import with_fields
from metatune.fit.trainers.failure import NotFinite, refuse_diverged
from metatune.hypergrad import Growth
from metatune.inner import prepare
from metatune.inner.origin import origin
from metatune.recipe import schema
from metatune.report.signal import dominated
from metatune.tunables.blocks import WindowBlock, blocks, growths

STEPS = np.array([0, 25, 50, 75, 100])


def grown(params, damped=(0.0, 0.0, 0.0, 0.0), steps=STEPS):
    params = jnp.asarray(params, jnp.float32)
    return Growth(steps, params, params, jnp.asarray(damped, jnp.float32))


def halves(count=2):
    return [WindowBlock("rates", w, w / count, (w + 1) / count, False) for w in range(count)]


def test_windows_are_blocks():
    """Also of knots, each of which acts as far as its neighbours."""
    rates = schema.LearningRatesSpec(per="layer", windows=3, interpolation="linear")
    training = prepare(tiny(tune={"learning_rates": rates}))
    found = blocks(training.tunables)
    assert [(each.key, each.window, each.first, each.stop, each.relative) for each in found] == [
        ("learning_rates", 0, 0.0, 0.5, False),
        ("learning_rates", 1, 0.0, 1.0, False),
        ("learning_rates", 2, 0.5, 1.0, False),
        ("mixture", 0, 0.0, 0.5, True),
        ("mixture", 1, 0.5, 1.0, True),
    ]
    eta = training.initial_eta()
    row = found[1].row(eta)
    assert row.shape == (eta["learning_rates"].shape[1],)
    changed = found[1].put(eta, row + 1)
    np.testing.assert_array_equal(changed["learning_rates"][1], row + 1)
    np.testing.assert_array_equal(changed["learning_rates"][::2], eta["learning_rates"][::2])


def test_directions():
    """All rates alike; shares as the hypergradient has them, which says nothing of its size."""
    rates, shares = WindowBlock("rates", 0, 0, 1, False), WindowBlock("mixture", 0, 0, 1, True)
    np.testing.assert_array_equal(rates.direction(np.array([3.0, -1.0])), [1, 1])
    np.testing.assert_array_equal(shares.direction(np.array([3.0, -3.0])), [0.5, -0.5])
    np.testing.assert_array_equal(shares.direction(np.array([-3e9, 3e9])), [-0.5, 0.5])
    assert shares.direction(np.zeros(2)) is None
    assert shares.direction(np.array([np.inf, 0.0])) is None


def test_growth_is_against_the_least_that_comes_later():
    """At the boundaries that a window's steps lead to: 25 and 50, 75 and 100; that at 0 is not."""
    found = growths(grown([900.0, 20.0, 2.0, 0.5, 1.0]), halves(), 100)
    np.testing.assert_allclose(found, [40.0, 1.0], rtol=1e-6)


def test_growth_is_without_the_cap():
    """What a cap took from the adjoint on its way is counted."""
    capped = grown([1.0, 2.0, 2.0, 0.5, 1.0], [0.0, 0.0, np.log(0.1), 0.0])
    np.testing.assert_allclose(growths(capped, halves(), 100), [40.0, 1.0], rtol=1e-6)


def test_growth_of_several_trainings_is_the_median():
    each = [[9.0, 9.0, 9.0], [20.0, 4.0, 1.0], [2.0, 2.0, 2.0], [0.5, 0.5, 0.5], [1.0, 1.0, 1.0]]
    found = growths(grown(each, np.zeros((4, 3))), halves(), 100)
    np.testing.assert_allclose(found, [8.0, 1.0], rtol=1e-6)


def test_a_window_shorter_than_a_segment_is_judged_by_the_boundary_behind_it():
    found = growths(grown([9.0, 20.0, 2.0, 0.5, 1.0]), halves(8), 100)
    np.testing.assert_allclose(found[:4], [40, 40, 4, 4], rtol=1e-6)


def test_a_truncated_training_has_no_growth_before_it():
    late = grown([9.0, 1.0, 1.0], [0.0, 0.0], np.array([50, 75, 100]))
    np.testing.assert_allclose(growths(late, halves(4), 100), [1, 1, 1, 1], rtol=1e-6)
    # A population's steps are counted from where it is differentiated.
    late = grown([9.0, 8.0, 1.0], [0.0, 0.0], np.array([0, 25, 50]))
    np.testing.assert_allclose(growths(late, halves(4), 100), [1, 1, 8, 1], rtol=1e-6)


@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_what_is_not_finite_grew_beyond_all(bad):
    assert growths(grown([bad, bad, 2.0, 0.5, 1.0]), halves(4), 100)[0] == np.inf
    np.testing.assert_array_equal(growths(grown(np.zeros(5)), halves(), 100), [1, 1])


def test_where_growth_is_born():
    inner = schema.InnerSpec(
        optimizer=schema.AdamWSpec(
            learning_rate=1e-3, schedule=schema.CosineSpec(warmup=0.1), eps_root=1e-9
        ),
        steps=100,
    )
    found = origin(inner, grown([900.0, 20.0, 2.0, 0.5, 1.0]), 10, 100)
    assert found == {
        "before": 25,
        "steepest": [0, 25],
        "per_step": pytest.approx(45 ** (1 / 25)),
        "warmup": 10,
        "eps_root": 1e-9,
        "rate": 1e-3,
    }


def test_hints_name_the_fields_of_the_group_that_they_mean():
    several = schema.GroupsSpec(
        groups=(
            schema.MuonGroupSpec(0.02, match="layers", eps_root=1e-8),
            schema.SGDGroupSpec(0.03, match="embed"),
            schema.AdamWGroupSpec(0.001, eps_root=1e-10),
        ),
        schedule=schema.CosineSpec(warmup=0.5),
    )
    inner = schema.InnerSpec(optimizer=several, steps=100)
    found = origin(inner, grown([900.0, 20.0, 2.0, 0.5, 1.0]), 10, 100)
    growing = {"tunable": "mixture", "window": 0, "growth": 900.0}
    assert "inner.optimizer.groups[2].eps_root (now 1e-10) of 1e-8" in dominated(
        1, [growing], found, None
    )
    late = {**found, "warmup": 0, "steepest": [25, 50]}
    assert "A lower inner.optimizer.groups[1].learning_rate, or fewer" in dominated(
        1, [growing], late, None
    )
    losses, where = np.array([np.nan]), {"training": "test", "seed": 0}
    with pytest.raises(NotFinite, match=r"lower inner\.optimizer\.groups\[1\]\.learning_rate, l"):
        refuse_diverged(losses, "test training 0", **where, optimizer=several)
    hint = "raise inner.optimizer.eps_root, or lower inner.optimizer.clip_norm"
    alone = schema.SGDSpec(0.1)
    assert schema.in_groups(hint, alone) == hint
    assert schema.in_groups(hint, several) == hint.replace("eps_root", "groups[2].eps_root")
    certificate = {"causes": [], "checks": {"growth": {"level": "amber", "causes": [CHAOS]}}}
    ((cause,),) = (each["causes"] for each in with_fields(certificate, several)["checks"].values())
    assert "inner.optimizer.groups[2].eps_root or fewer inner.steps" in cause
