"""What keeping states costs, predicted; and the choice that a budget leaves."""

import jax.numpy as jnp
import pytest

from metatune.hypergrad import CheckpointError, Checkpoints, MixFlow, Problem, State, hypergradient
from metatune.hypergrad.reverse.budget import amount, cheapest, cost
from metatune.hypergrad.reverse.policies import Every, Kept, Recursive

SEGMENT = 4
STATE, SAVED = 2 * 5 * 4, SEGMENT * 5 * 4
"""Bytes: θ and a momentum of five float32 each; the gradients of a segment."""
PROBLEM = Problem(
    loss=lambda params, hyper, batch: jnp.mean((params - batch) ** 2),
    update=lambda g, trace, p, rate: (p - rate * (0.9 * trace + g), 0.9 * trace + g),
    objective=lambda params, batch: jnp.sum(params * batch),
    hyper_at=lambda eta, step: eta,
)


def estimate(checkpoints, segments, save=True):
    return hypergradient(
        PROBLEM,
        jnp.float32(0.1),
        State(jnp.zeros(5), jnp.zeros(5)),
        lambda step: jnp.full(5, 1.0 + step),
        [jnp.ones(5)],
        steps=SEGMENT * segments,
        estimator=MixFlow(SEGMENT, save_gradients=save),
        checkpoints=checkpoints,
    )


@pytest.mark.parametrize("save", [True, False])
@pytest.mark.parametrize("segments", [1, 2, 7, 16])
@pytest.mark.parametrize(
    ("kept", "policy"),
    [
        (Checkpoints("all"), Every(1)),
        (Checkpoints(3), Every(3)),
        (Checkpoints("recursive", slots=1), Recursive(1)),
        (Checkpoints("recursive", slots=4), Recursive(4)),
    ],
    ids=str,
)
def test_the_cost_is_predicted_exactly(kept, policy, segments, save):
    seen = estimate(kept, segments, save).diagnostics
    predicted = cost(Kept(policy), segments, STATE, SAVED if save else 0)
    assert predicted == (seen.peak_bytes, seen.peak_states, seen.recomputed_segments)


def test_a_budget_is_used_and_kept():
    segments, all_kept = 40, estimate(Checkpoints(), 40)
    full = all_kept.diagnostics.peak_bytes
    recomputed = []
    for budget in (full, full - 1, full // 2, full // 4, 4 * STATE, 2 * STATE):
        result = estimate(Checkpoints("auto", store="host", budget_bytes=budget), segments)
        assert result.diagnostics.peak_bytes <= budget
        assert result.gradient == all_kept.gradient
        recomputed.append(result.diagnostics.recomputed_segments)
    assert recomputed[0] == 0 < recomputed[1]
    assert recomputed == sorted(recomputed)


def test_the_choice_is_the_best_of_all_that_fit():
    policies = [Every(1), Every(8), *(Recursive(slots) for slots in range(1, 50))]
    ways = [Kept(policy, saved) for policy in policies for saved in (True, False)]
    for budget in (3, 10, 25, 60, 120, 200):
        costs = {kept: cost(kept, 50, 1, 2) for kept in ways}
        fitting = [c.recomputed_segments for c in costs.values() if c.peak_bytes <= budget]
        chosen = costs[cheapest(50, 1, 2, budget)]
        assert chosen.peak_bytes <= budget
        assert chosen.recomputed_segments == min(fitting)


def test_without_a_budget_half_of_what_is_free():
    seen = estimate(Checkpoints("auto", store="host"), 16).diagnostics
    assert seen.recomputed_segments == 0


def test_a_budget_that_nothing_fits():
    with pytest.raises(CheckpointError) as error:
        estimate(Checkpoints("auto", store="host", budget_bytes=STATE), 9)
    least = 2 * STATE
    assert str(error.value) == (
        f"no way to keep states of 40 bytes fits a budget of 40 bytes: the smallest that would is "
        f"{least} bytes, with the policy `recursive` and 1 slot, which `auto` then takes; raise "
        "the budget, or keep states where there is more room (device, host, disk)"
    )
    enough = estimate(Checkpoints("auto", store="host", budget_bytes=least), 9)
    assert enough.gradient == estimate(Checkpoints(), 9).gradient


def test_amounts():
    assert amount(3 * 2**29) == "1.50 GiB (1610612736 bytes)"
    assert amount(7) == "7 bytes"
