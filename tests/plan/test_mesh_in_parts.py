"""What a plan for a mesh adds up: sizes, a tuned start, hosts. Nothing is compiled here."""

from itertools import chain, repeat
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from recipes import tiny

from metatune.hypergrad.segments import inexact
from metatune.hypergrad.stores import device_bytes, tree_bytes
from metatune.inner import prepare
from metatune.models.layout import abstract_mesh_of
from metatune.plan import mesh
from metatune.plan.memory import host_bytes_of
from metatune.plan.mesh import planning
from metatune.plan.mesh.accelerators import Accelerator
from metatune.plan.mesh.programs import MeshProgram
from metatune.plan.mesh.work_in_hlo import ProgramWork, Traffic
from metatune.plan.reverse_mode import adjoint_of, work_of
from metatune.recipe import schema
from metatune.transfer.sized import sizes

FEW_FLOPS = Accelerator("slow", 2**30, {"float32": 1e6}, 1e9)


SPEC = schema.MixFlowSpec(segment=2, checkpoints=schema.CheckpointsSpec(keep="all"))


def of(outer=None, members=1, **sections):
    """A recipe on fsdp=2, of two segments of two steps."""
    return tiny(
        {"vocab_size": 264},
        inner={"steps": 4},
        outer={"estimator": SPEC, **(outer or {})},
        devices=schema.DevicesSpec(fsdp=2, members=members),
        **sections,
    )


@pytest.fixture
def counted(monkeypatch):
    """The programs of the first training do a product each, those of the next a thousand."""
    calls = chain((1, 1000), repeat(1))

    def compiled(trace, *_):
        work = ProgramWork(next(calls), {"all-gather": Traffic(1, 4)})
        return {name: MeshProgram(0, 0, 10, work, 0.0) for name in trace}

    monkeypatch.setattr(planning, "compiled", compiled)


def test_several_sizes_take_what_each_takes_and_the_memory_of_the_largest(counted):
    training = prepare(of({"robust": schema.RobustSpec(widths=(1, 2), seeds=3)}), elsewhere=True)
    plan = mesh.on_mesh(training, FEW_FLOPS, folder=Path())
    largest = sizes(training)[-1].training
    assert largest.elsewhere and plan.memory is not None and plan.pace is not None
    # Two segments forward and back, and the objective's gradient, in those of a forward step.
    one = 2 + 2 + work_of(training, SPEC).objective_gradients() / 2
    assert plan.flops == pytest.approx(3 * one * (1 + 1000))
    assert plan.moved["all-gather"].bytes == pytest.approx(3 * 2 * one * 4, abs=3)
    sent = plan.moved["all-gather"].bytes
    assert plan.pace.hypergradient == pytest.approx(plan.flops / 0.4e6 + sent / 1e9)
    state, adjoint = largest.shapes(), adjoint_of(work_of(largest, SPEC))
    # A state in hand and one that comes back, while the first waits, which carries it.
    assert plan.memory.state == 2 * device_bytes(state) + device_bytes(adjoint)


def test_a_tuned_start_is_planned_with_the_state_that_it_is_made_of(counted):
    """There are as many meta-parameters as parameters, whole on each device, and their adjoint."""
    fresh = {"fresh": schema.FreshSpec(initialisation=False)}
    plain = prepare(of(fresh), elsewhere=True)
    start = prepare(of(fresh, tune={"initialisation": schema.PointSpec()}), elsewhere=True)
    one, other = (mesh.on_mesh(each, None, folder=Path()).memory for each in (plain, start))
    assert one is not None and other is not None
    state = start.shapes()
    assert device_bytes(state) < 0.6 * tree_bytes(state)
    assert other.state - one.state == tree_bytes(state.params) + device_bytes(state)


def memory_of(outer, members=1, **sections):
    training = prepare(of(outer, members, **sections), elsewhere=True)
    found = mesh.on_mesh(training, None, folder=Path()).memory
    assert found is not None
    return training, found


def tangents_of(training, count):
    """Bytes of so many tangents on a device, and of all directions, with those that have begun."""
    state = training.shapes()
    one = device_bytes((state.params, inexact(state.opt_state)[0]))
    size = sum(leaf.size for leaf in jax.tree.leaves(training.initial_eta()))
    return count * one, 2 * 4 * size


def test_a_device_has_its_part_of_directions(counted):
    """Of six in chunks of four two at a time, over an axis of two; all of four without."""
    spec = schema.ForwardGradientSpec(segment=2, directions=6, chunk=4)
    for members, held in ((1, 4), (2, 2)):
        training, found = memory_of({"estimator": spec}, members)
        tangents, directions = tangents_of(training, held)
        assert found.carry == tangents + 4 * directions


def test_a_device_has_its_part_of_members(counted):
    """What waits for the way back, and states, but not the copies of what is tuned."""
    outer = {"population": schema.PopulationSpec(members=4), "estimator": SPEC}
    (_, one), (training, other) = (memory_of(outer, members) for members in (1, 2))
    eta = 4 * tree_bytes(training.initial_eta())
    assert one.carry == 2 * other.carry > 0
    assert one.state - eta == 2 * (other.state - eta) > 0


def test_forward_mode_of_a_tuned_start_is_planned(counted):
    """Every coordinate of the start is taken to move it, from the first step on."""
    tune = {
        "learning_rates": schema.LearningRatesSpec(per="global", windows=2),
        "mixture": None,
        "initialisation": schema.PointSpec(parameters=("model.norm.weight",)),
    }
    fresh = schema.FreshSpec(initialisation=False)
    outer = {"estimator": schema.ForwardSpec(segment=2), "fresh": fresh}
    training, found = memory_of(outer, tune=tune)
    (offset,) = training.initial_eta()["initialisation"].shape
    # The second window's rate begins later: a copy of those before is made then.
    tangents, directions = tangents_of(training, 2 * offset + 3)
    assert found.carry == tangents + (offset + 2) * directions
    # Over an axis of two as many as two divide act from the first on, and so all.
    training, found = memory_of(outer, 2, tune=tune)
    assert found.carry == tangents_of(training, (offset + 2) // 2)[0] + (offset + 2) * directions


@pytest.mark.parametrize(
    ("parts", "spec", "share"),
    [
        ((1, 8, 1), (None, "fsdp"), 1),
        ((1, 16, 1), (None, "fsdp"), 1 / 2),
        ((16, 1, 1), (), 1),
        ((2, 8, 1), (None, "fsdp"), 1),
        ((1, 16, 2), ("tensor", "fsdp"), 1 / 4),
        ((1, 16, 2), (None, "fsdp"), 1 / 4),
        ((1, 16, 2), ("tensor",), 1),
        ((1, 4, 1), (("data", "fsdp"),), 1),
    ],
)
def test_a_host_keeps_what_its_eight_devices_have_once(parts, spec, share):
    place = NamedSharding(abstract_mesh_of(*parts), PartitionSpec(*spec))
    leaf = jax.ShapeDtypeStruct((32, 64), jnp.float32, sharding=place)
    assert host_bytes_of([leaf]) == share * 32 * 64 * 4


@pytest.mark.parametrize(("store", "place"), [("device", "carry"), ("host", "host")])
def test_a_budget_is_of_each_device_or_of_each_host(counted, store, place):
    """What is needed for all states is enough, and a byte less is not."""

    def planned(**kept):
        kept = schema.CheckpointsSpec(store=store, **kept)
        recipe = of({"estimator": schema.MixFlowSpec(segment=2, checkpoints=kept)})
        found = mesh.on_mesh(prepare(recipe, elsewhere=True), None, folder=Path()).memory
        assert found is not None
        return found

    needed = getattr(planned(keep="all"), place)
    assert planned(budget_bytes=needed).recomputed_segments == 0
    assert planned(budget_bytes=needed - 1).recomputed_segments > 0
