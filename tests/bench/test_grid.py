"""What `metatune bench` measures: its trainings, their memory told apart, and times."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from metatune import bench
from metatune.bench import timing, workload
from metatune.bench.memory import TINY, compile_hypergradient, memory_of
from metatune.bench.variants import VARIANTS
from metatune.hypergrad import MixFlow, Reverse
from metatune.recipe.faults import RecipeError

SMALL = bench.SIZES["0.5M"]._replace(vocab=32, width=16, hidden=24, layers=2, steps=2, **TINY)
"""The smallest batch there is: nothing is compiled a second time to tell its memory apart."""
COMPARED = ("reverse", "mixflow+remat+saved")


@pytest.fixture(scope="module")
def rows():
    """Two variants of a tiny training, timed."""
    said = []
    case, compared = bench.Case("tiny", SMALL), bench.variants(COMPARED)
    found = bench.run(case, compared, rounds=1, listener=said.append)
    assert any("compiling mixflow+remat+saved" in line for line in said)
    return found


@pytest.mark.parametrize("name", bench.SIZES)
def test_a_size_is_called_what_it_is(name):
    shape = bench.SIZES[name]
    assert shape.parameters == pytest.approx(1e6 * float(name.removesuffix("M")), rel=0.05)
    _, state, _, _ = jax.eval_shape(lambda key: workload.initial(shape, key), jax.random.key(0))
    assert shape.parameters == sum(leaf.size for leaf in jax.tree.leaves(state.params))


def test_memory_is_told_apart(rows):
    carries = [3 * 2, 3 * 1 + 2]  # in copies of the parameters: states, and gradients where saved
    for row, carry in zip(rows, carries, strict=True):
        assert row.memory.carry == carry * 4 * SMALL.parameters
        assert row.memory.parameters > 0
        assert row.memory.activations == 0  # nothing above those of the smallest batch
        assert row.memory.arguments >= 3 * 4 * SMALL.parameters


def test_activations_are_what_a_batch_adds(rows):
    larger, variant = SMALL._replace(batch=4, sequence=32), VARIANTS[COMPARED[1]]
    program = compile_hypergradient(larger, variant)
    measured, resting = memory_of(larger, variant, program), rows[1].memory
    assert measured.temp == program.temp_bytes
    assert measured._replace(arguments=0, activations=0, block_inputs=0) == resting._replace(
        arguments=0, block_inputs=0
    )
    assert measured.block_inputs == 2 * 4 * 32 * 16 * 4
    assert measured.activations > measured.block_inputs


def test_times_are_in_plain_steps(rows):
    for row in rows:
        assert row.seconds > 0
        assert row.plain_steps == pytest.approx(row.seconds / row.plain_seconds / SMALL.steps)
        assert row.untimed is None


def test_what_does_not_fit_is_not_run(monkeypatch):
    monkeypatch.setattr(timing, "free_bytes", lambda: 10)
    (row,) = bench.run(bench.Case("tiny", SMALL), bench.variants(COMPARED[:1]), rounds=1)
    assert row.seconds is None and row.plain_steps is None
    assert row.untimed == f"needs {row.memory.arguments + row.memory.temp} bytes, 10 are free"


@pytest.mark.parametrize(
    ("name", "estimator"),
    [
        ("reverse", Reverse(4)),
        ("reverse+remat+chunks", Reverse(4)),
        ("reverse+remat+saved", MixFlow(1, mixed_mode=False)),
        ("mixflow", MixFlow(1, save_gradients=False)),
        ("mixflow+remat+chunks+saved", MixFlow(1)),
    ],
)
def test_a_variant_is_an_estimator(name, estimator):
    assert VARIANTS[name].name == name
    assert VARIANTS[name].estimator(4) == estimator


@pytest.mark.parametrize(
    ("name", "steps", "length", "copies"),
    [
        ("mixflow+saved", 8, 1, 3 * 7 + 8),
        ("mixflow", 8, 1, 3 * 7),
        ("mixflow+saved", 16, 16, 3 * 16 + 16),
        ("mixflow", 16, 16, 3 * 16 + 16),  # those of the replay
        ("reverse", 16, 16, 3 * 16),
    ],
)
def test_the_carry_follows_the_horizon(name, steps, length, copies):
    shape, variant = SMALL._replace(steps=steps), VARIANTS[name]
    assert variant.estimator(steps).segment == length
    assert variant.carry_bytes(shape) == copies * 4 * SMALL.parameters


def test_variants_give_the_same_hypergradient(rows):
    given = workload.initial(SMALL, jax.random.key(0))
    programs = [compile_hypergradient(SMALL, row.variant) for row in rows]
    first, second = (ravel_pytree(program.run(*given))[0] for program in programs)
    assert jnp.linalg.norm(first) > 0
    np.testing.assert_allclose(second, first, rtol=1e-3, atol=1e-6)


def test_rates_are_for_tensors_and_weights_for_examples():
    eta, _, tokens, outer = workload.initial(SMALL, jax.random.key(0))
    layer = eta["rates"]["model"]["layers"]
    assert layer["mlp"]["gate_proj"]["weight"].shape == (2, 1, 1)
    assert eta["rates"]["lm_head"]["weight"].shape == (1, 1)
    assert eta["weights"].shape == (1,)
    assert tokens.shape == (2, 1, 9) and outer.shape == (1, 9)


def test_cases_are_all_combinations():
    found = bench.cases(["0.5M", "1M", "1M"], ["layers=2,4", "steps=3"])
    shapes = [(case.size, case.shape.layers, case.shape.steps) for case in found]
    assert shapes == [("0.5M", 2, 3), ("0.5M", 4, 3), ("1M", 2, 3), ("1M", 4, 3)]
    assert str(found[0]) == "0.5M: 2 layers, 8 x 128 tokens, T = 3"


@pytest.mark.parametrize(
    ("sizes", "vary", "said"),
    [
        (["5.4M"], [], "size = '5.4M': unknown size; did you mean 5.3M?"),
        (["1M"], ["layer=2"], "vary = 'layer=2': unknown axis; did you mean layers?"),
        (["1M"], ["layers"], "vary = 'layers': not of the form AXIS=VALUE,VALUE; write"),
        (["1M"], ["steps=2,0"], "'0' is not a whole number of 1 or above"),
        (["1M"], ["steps=2,x"], "'x' is not a whole number of 1 or above"),
        (["1M"], ["steps="], "'' is not a whole number of 1 or above"),
        (["1M"], ["steps=2", "steps=4"], "vary = 'steps=4': steps is varied twice"),
    ],
)
def test_what_cannot_be_measured_is_refused(sizes, vary, said):
    with pytest.raises(RecipeError) as raised:
        bench.cases(sizes, vary)
    assert said in str(raised.value)


def test_faults_come_together():
    with pytest.raises(RecipeError, match="bench: 3 faults"):
        bench.cases(["5.4M"], ["layer=x"])
    with pytest.raises(RecipeError, match="variant = 'mixflov': unknown variant; did you mean mix"):
        bench.variants(["reverse", "mixflov"])


# Of JAX, not of anything here: seldom enough.
@pytest.mark.thorough
def test_the_checkpoint_that_jax_is_about_to_change_to_takes_no_more_memory():
    """Its flag is off by default in all JAX of today; `scripts/measure_remat3.py` has the table."""
    if not hasattr(jax.config, "jax_remat3"):
        pytest.skip("this JAX has no such flag")
    default = jax.config.jax_remat3  # pyright: ignore[reportAttributeAccessIssue]
    assert not default, "JAX's default has changed: measure reverse mode, too"
    temporary = []
    for flag in (False, True):
        jax.config.update("jax_remat3", flag)
        try:
            program = compile_hypergradient(SMALL, VARIANTS["mixflow+remat+saved"])
        finally:
            jax.config.update("jax_remat3", False)
        temporary.append(program.temp_bytes)
    assert temporary[1] <= 1.05 * temporary[0]
