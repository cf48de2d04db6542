"""What is read from a compiled program's text, against counts by hand."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from metatune.hypergrad import programs
from metatune.hypergrad.forward.tangents import Tangents
from metatune.models.layout import abstract_mesh_of
from metatune.plan.mesh.work_in_hlo import Traffic, work_in


def matrix(*shape, spec, members=1):
    of_eight = abstract_mesh_of(2 // members, 4, 1, members)
    place = NamedSharding(of_eight, PartitionSpec(*spec))
    return jax.ShapeDtypeStruct(shape, jnp.float32, sharding=place)


def test_a_loop_counts_as_often_as_it_is_run():
    """Five turns, in each a product of a device's [1, 16] x [16, 16], of a batch of 8 on 8.

    A matrix that is cut in four is put together; so is a sum over the batch, which a ring moves
    twice.
    """

    def run(x, w):
        turned = jax.lax.fori_loop(0, 5, lambda _, x: jnp.tanh(x @ w), x)
        return turned.sum(0)

    given = matrix(8, 16, spec=(("data", "fsdp"),)), matrix(16, 16, spec=(None, "fsdp"))
    lowered = jax.jit(run).trace(*given).lower(lowering_platforms=("cpu",))
    text = lowered.compile(device_assignment=tuple(jax.devices()[:1] * 8)).as_text()
    found = work_in(text or "")
    assert found.flops == 5 * 2 * 1 * 16 * 16
    assert found.moved["all-gather"].bytes % (16 * 16 * 4) == 0
    assert found.moved["all-reduce"] == Traffic(1, 2 * 16 * 4)
    assert found.moved_bytes == sum(each.bytes for each in found.moved.values())


def test_derivatives_along_directions_are_summed_where_tangents_lie():
    """Nothing is put together: of a device's two of four directions a number each is summed."""
    bar = {"weight": matrix(3, 8, 16, spec=(None, None, "fsdp"), members=2)}
    whole = matrix(4, 3, 8, 16, spec=("members", None, None, "fsdp"), members=2)
    tangents = Tangents({"weight": whole}, [])
    lowered = programs.contract.trace(None, (bar, None), tangents)
    text = lowered.lower(lowering_platforms=("cpu",)).compile(
        device_assignment=tuple(jax.devices()[:1] * 8)
    )
    found = work_in(text.as_text() or "")
    assert found.flops == 2 * 2 * 3 * 8 * 4
    assert found.moved == {"all-reduce": Traffic(1, 2 * 2 * 4)}


BRANCHES = """
%one (p: f32[4,8]) -> f32[4,4] {
  %p = f32[4,8]{1,0} parameter(0)
  ROOT %d = f32[4,4]{1,0} dot(%p, %p), lhs_contracting_dims={1}, rhs_contracting_dims={1}
}

%other (q: f32[4,8]) -> f32[4,4] {
  %q = f32[4,8]{1,0} parameter(0)
  ROOT %r = bf16[4,4]{1,0} all-gather(%q), dimensions={0}
}

%body (s: f32[4,8]) -> f32[4,4] {
  %s = f32[4,8]{1,0} parameter(0)
  ROOT %c = f32[4,4]{1,0} conditional(%s, %s, %s), branch_computations={%one, %other}
}

ENTRY %main (x: f32[4,8]) -> f32[4,4] {
  %x = f32[4,8]{1,0} parameter(0)
  ROOT %w = f32[4,4]{1,0} while(%x), condition=%k, body=%body, \
backend_config={"known_trip_count":{"n":"3"}}
}
""".replace("\\\n", "")


def test_of_branches_the_most_counts():
    found = work_in(BRANCHES)
    assert found.flops == 3 * 2 * 4 * 4 * 8
    assert found.moved == {"all-gather": Traffic(3, 3 * 4 * 4 * 2)}
    with pytest.raises(ValueError, match="has an ENTRY"):
        work_in("nothing")
