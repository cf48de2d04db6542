"""What a plan says of a mesh, against XLA's analysis on devices that are there.

This file runs itself in a process with eight virtual ones.
"""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from recipes import tiny
from typer.testing import CliRunner

from metatune.hypergrad import programs
from metatune.hypergrad.reverse.adjoint import Adjoint
from metatune.hypergrad.segments import inexact
from metatune.hypergrad.stores import device_bytes
from metatune.inner import prepare
from metatune.models.layout import abstract_mesh_of
from metatune.plan import NotPredicted, mesh
from metatune.plan.mesh import axes, planning, smallest
from metatune.plan.mesh import programs as planned
from metatune.plan.mesh.accelerators import Accelerator
from metatune.plan.mesh.work_in_hlo import Moved, work_in
from metatune.plan.reverse_mode import saved_by, work_of
from metatune.recipe import schema, writing
from metatune.recipe.faults import RecipeError

VIRTUAL = 8
LLAMA = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 264,
}
MESH = (2, 2, 2)
LORA = schema.LoraSpec(rank=4, alpha=8.0, targets=("q_proj", "down_proj"))
RECIPE = tiny(
    LLAMA,
    data={"batch_size": 8},
    inner={"lora": LORA, "steps": 4},
    outer={"estimator": schema.MixFlowSpec(segment=2, gradient_dtype="bfloat16")},
    devices=schema.DevicesSpec(*MESH),
)


def work(training):
    return work_of(training, training.recipe.outer.estimator)


# In the process with eight devices.


def analysed():
    """XLA's analysis of the programs that a run compiles, given the arrays that it has."""
    training = prepare(RECIPE)
    of = work(training)
    problem, estimator = of.problem, of.estimator
    eta, state, segment = training.initial_eta(), training.initialise(jax.random.key(0)), None
    segment = of.segment(1)
    held_out = of.held_out(RECIPE.outer.objective.sequences)[0]
    before = jax.tree.map(jnp.copy, state)
    ran = programs.forward(problem, estimator, eta, state, segment)
    bar = programs.objective(problem, ran.state.params, held_out)[1]
    zeros = [jnp.zeros_like(leaf) for leaf in inexact(ran.state.opt_state)[0]]
    adjoint = Adjoint(bar, zeros, jax.tree.map(jnp.zeros_like, eta))
    lowered = {
        "forward": programs.forward.lower(problem, estimator, eta, state, segment),
        "pullback": programs.pullback.lower(
            problem, estimator, eta, segment, (before, ran.saved), adjoint
        ),
        "objective": programs.objective.lower(problem, state.params, held_out),
    }
    found = {}
    for name, program in lowered.items():
        analysis = program.compile().memory_analysis()
        found[name] = [
            analysis.argument_size_in_bytes,
            analysis.output_size_in_bytes,
            analysis.temp_size_in_bytes,
        ]
    first = jax.devices()[0]
    for name, tree in {"state": state, "saved": ran.saved, "frozen": training.frozen}.items():
        shards = [s for leaf in jax.tree.leaves(tree) for s in leaf.addressable_shards]
        found[name] = sum(shard.data.nbytes for shard in shards if shard.device == first)
    return found


# Here, on one device.


@pytest.fixture(scope="module")
def training():
    return prepare(RECIPE, elsewhere=True)


@pytest.fixture(scope="module")
def programs_of_mesh(training):
    return planned.compiled(work(training), lambda *_: None)


def test_planned_bytes_are_those_of_devices_that_are_there(training, programs_of_mesh):
    """Bytes of arguments, results and temporary arrays of each device, to the byte."""
    environment = {"JAX_NUM_CPU_DEVICES": str(VIRTUAL), "NPROC": str(8 * VIRTUAL)}
    done = subprocess.run(
        [sys.executable, __file__],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    for name, program in programs_of_mesh.items():
        assert [program.arguments, program.outputs, program.temporary] == seen[name], name
    of = work(training)
    assert device_bytes(of.state()) == seen["state"]
    assert device_bytes(saved_by(of, of.estimator)) == seen["saved"] > 0
    assert of.beside_bytes() == seen["frozen"] > 0


if __name__ == "__main__":
    assert len(jax.devices()) == VIRTUAL
    print(json.dumps(analysed()))
