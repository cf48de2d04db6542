"""How many rows of a large array exist at a time, and that nothing changes by it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metatune.models.chunking import LARGEST, map_rows, rows_at_a_time

ROW = 2**20  # float32 numbers: 16 rows are as large as an array gets by itself


@pytest.mark.parametrize(
    ("rows", "chunk"),
    [
        (1, None),
        (16, None),  # exactly the limit
        (17, 9),  # two chunks, as even as can be
        (48, 16),
        (49, 13),
    ],
)
def test_auto_cuts_what_is_too_large_into_the_fewest_chunks(rows, chunk):
    assert LARGEST == 16 * 4 * ROW
    assert rows_at_a_time("auto", rows=rows, columns=ROW) == chunk


def test_auto_takes_at_least_a_row():
    assert rows_at_a_time("auto", rows=3, columns=LARGEST) == 1


@pytest.mark.parametrize(("asked", "chunk"), [(None, None), (1, 1), (9, 9), (10, None), (11, None)])
def test_a_number_is_taken_unless_there_are_no_more_rows(asked, chunk):
    assert rows_at_a_time(asked, rows=10, columns=LARGEST) == chunk


@pytest.mark.parametrize("chunk", [1, 3, 7, 8])
def test_rows_come_back_in_order(chunk):
    left, right = jnp.arange(14.0).reshape(7, 2), jnp.arange(7)
    got = map_rows(lambda a, b: a * b[:, None].astype(a.dtype), (left, right), chunk)
    np.testing.assert_array_equal(got, np.arange(14.0).reshape(7, 2) * np.arange(7)[:, None])


@pytest.mark.parametrize("chunk", [1, 2, 4])
def test_rows_of_several_parts_come_back_in_order(chunk):
    """A chunk is of each part."""
    seen = []

    def doubled(rows):
        seen.append(rows.shape)
        return 2 * rows

    got = map_rows(doubled, (jnp.arange(24.0).reshape(12, 2),), chunk, parts=3)
    np.testing.assert_array_equal(got, 2 * np.arange(24.0).reshape(12, 2))
    assert set(seen) == {(chunk, 2)}


def test_it_is_computed_again_where_it_is_differentiated():
    x = jnp.arange(7.0)
    for gradient in (jax.grad, lambda f: jax.grad(lambda x: jax.grad(f)(x).sum())):
        text = str(jax.make_jaxpr(gradient(lambda x: map_rows(jnp.sin, (x,), 2).sum()))(x))
        # `remat2`, or `RematTraced` where JAX_REMAT3=1.
        assert "sin" in text and "remat" in text.lower()
