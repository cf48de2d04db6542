"""Base schedules, against those of optax."""

import numpy as np
import optax
import pytest

from metatune.inner.schedules import base_rates
from metatune.recipe import schema

PEAK, STEPS, WARMUP = 3e-3, 200, 10
FIRST = PEAK / (WARMUP + 1)


def joined_wsd():
    return optax.join_schedules(
        [
            optax.linear_schedule(FIRST, PEAK, WARMUP),
            optax.constant_schedule(PEAK),
            optax.linear_schedule(PEAK, 0.1 * PEAK, 40),
        ],
        [WARMUP, STEPS - 40],
    )


# A row for each schedule, with the optax schedule that it must equal.
SCHEDULES = {
    "constant": (schema.ConstantSpec(), optax.constant_schedule(PEAK)),
    "constant, warmup": (
        schema.ConstantSpec(warmup=0.05),
        optax.warmup_constant_schedule(FIRST, PEAK, WARMUP),
    ),
    "cosine": (
        schema.CosineSpec(warmup=0.05, final=0.1),
        optax.warmup_cosine_decay_schedule(FIRST, PEAK, WARMUP, STEPS, 0.1 * PEAK),
    ),
    "cosine, no warmup": (
        schema.CosineSpec(warmup=0.0, final=0.0),
        optax.cosine_decay_schedule(PEAK, STEPS),
    ),
    "wsd": (schema.WarmupStableDecaySpec(warmup=0.05, decay=0.2, final=0.1), joined_wsd()),
}


@pytest.mark.parametrize("ours, theirs", SCHEDULES.values(), ids=SCHEDULES.keys())
def test_equals_optax(ours, theirs):
    want = [float(theirs(step)) for step in range(STEPS)]
    # optax computes in float32, near the end of a cosine with cancellation
    np.testing.assert_allclose(base_rates(ours, PEAK, STEPS), want, rtol=1e-5, atol=1e-7 * PEAK)


@pytest.mark.parametrize("ours, _", SCHEDULES.values(), ids=SCHEDULES.keys())
def test_the_first_update_is_not_lost(ours, _):
    rates = base_rates(ours, PEAK, STEPS)
    assert rates.shape == (STEPS,)
    assert rates.min() > 0
    assert rates.max() == pytest.approx(PEAK)


@pytest.mark.parametrize(
    "kind", [schema.ConstantSpec, schema.CosineSpec, schema.WarmupStableDecaySpec]
)
def test_a_single_step_has_a_rate(kind):
    assert base_rates(kind(), PEAK, 1) == pytest.approx([PEAK])
