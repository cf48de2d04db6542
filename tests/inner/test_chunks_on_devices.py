"""What a chunked loss moves between devices: this file runs itself with eight virtual ones."""

import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metatune.inner.cross_entropy import token_losses
from metatune.models import Layout, mesh_of
from metatune.plan.mesh.work_in_hlo import work_in

VIRTUAL = 8
BATCH, LENGTH, FEATURES, VOCAB = 8, 32, 16, 24
CHUNKS = (None, 8, 2)
"""Of the tokens of a sequence: one chunk, 4 and 16."""
MESHES = {"fsdp 8": (1, 8, 1), "data 2, fsdp 4": (2, 4, 1), "data 2, fsdp 2, tensor 2": (2, 2, 2)}
WEIGHT = ("lm_head", "weight")
FLOAT64 = 8
"""Bytes."""


def programs(chunk, layout):
    """The gradient of a loss by features, unembedding and terms, and its tangent."""
    parts = 1 if layout is None else layout.parts

    def loss(given, targets):
        hidden, unembedding, terms = given
        if layout is not None:
            unembedding = layout.together({"lm_head": {"weight": unembedding}})["lm_head"]["weight"]
            hidden, targets = layout.cut((hidden, targets))
        return jnp.mean(
            token_losses(hidden, unembedding, targets, chunk=chunk, parts=parts, terms=terms) ** 2
        )

    gradient = jax.grad(loss)

    def tangent(given, targets):
        return jax.jvp(lambda given: gradient(given, targets), (given,), (given,))[1]

    return {"gradient": jax.jit(gradient), "tangent": jax.jit(tangent)}


def measured():
    """Of each mesh, program and chunk: the collectives, and how far off one device it is."""
    rng = np.random.default_rng(3)
    hidden, unembedding = (
        rng.normal(size=(BATCH, LENGTH, FEATURES)),
        rng.normal(size=(VOCAB, FEATURES)),
    )
    given = (hidden, unembedding, {"z_loss": np.float64(0.1), "label_smoothing": np.float64(0.2)})
    targets = rng.integers(0, VOCAB, (BATCH, LENGTH))
    want = {name: program(given, targets) for name, program in programs(None, None).items()}
    found = {}
    for mesh, sizes in MESHES.items():
        layout = Layout(mesh_of(*sizes))
        batch = jax.device_put((hidden, targets), layout.copied)
        rests = layout.stored(WEIGHT, unembedding.shape)
        there = (batch[0], jax.device_put(unembedding, rests), given[2])
        for chunk in CHUNKS:
            for name, program in programs(chunk, layout).items():
                text = program.lower(there, batch[1]).compile().as_text() or ""
                moved = {kind: list(each) for kind, each in work_in(text).moved.items()}
                apart = jax.tree.map(
                    lambda one, other: float(np.max(np.abs(one - other)) / np.max(np.abs(other))),
                    program(there, batch[1]),
                    want[name],
                )
                apart = max(jax.tree.leaves(apart))
                found[f"{mesh}, {name}, {chunk}"] = {"moved": moved, "apart": apart}
    return found


@pytest.fixture(scope="module")
def found():
    done = subprocess.run(
        [sys.executable, __file__],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "JAX_NUM_CPU_DEVICES": str(VIRTUAL),
            "NPROC": str(8 * VIRTUAL),
        },
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("program", ["gradient", "tangent"])
@pytest.mark.parametrize("mesh", MESHES)
def test_chunks_are_summed_over_devices_once(found, mesh, program):
    """More chunks move no byte more, and those of the unembedding's gradient move once."""
    whole, few, many = (found[f"{mesh}, {program}, {chunk}"]["moved"] for chunk in CHUNKS)
    reduced = [each["all-reduce"] for each in (whole, few, many)]
    assert few["all-gather"] == many["all-gather"]
    assert reduced[1][1] == reduced[2][1]
    if MESHES[mesh][2] == 1:  # else sums over the vocabulary are of each chunk, too
        matrix = 2 * VOCAB * FEATURES * FLOAT64  # a ring sends an array twice
        assert reduced[1] == reduced[2]
        assert matrix <= reduced[2][1] < 1.1 * matrix and reduced[2][1] <= reduced[0][1]


def test_gradients_and_tangents_are_those_of_one_device(found):
    assert len(found) == len(MESHES) * len(CHUNKS) * 2
    for name, row in found.items():
        assert row["apart"] < 1e-12, (name, row)


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    assert len(jax.devices()) == VIRTUAL
    print(json.dumps(measured()))
