"""Experts on several devices: this file runs itself in a process with eight virtual ones."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cells import cells

from metatune.models import Layout, build, mesh_of
from metatune.plan.mesh.work_in_hlo import work_in

VIRTUAL = 8
BATCH, LENGTH, FEATURES, VOCAB = 8, 16, 16, 24
SMALL = {
    "hidden_size": FEATURES,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 4,
    "vocab_size": VOCAB,
    "num_experts_per_tok": 2,
    "initializer_range": 0.3,
}
MODELS = {
    "qwen3_moe": {
        **SMALL,
        "model_type": "qwen3_moe",
        "intermediate_size": 16,
        "moe_intermediate_size": 8,
        "num_experts": 4,
        "norm_topk_prob": True,
    },
    "gpt_oss": {**SMALL, "model_type": "gpt_oss", "intermediate_size": 8, "num_local_experts": 4},
}
MESHES = {"data 4, fsdp 2": (4, 2, 1), "fsdp 8": (1, 8, 1), "fsdp 4, tensor 2": (1, 4, 2)}
CASES = [f"{model}, {mesh}" for model in MODELS for mesh in MESHES]
FIRST = "qwen3_moe, data 4, fsdp 2"
FURTHER = {*CASES} - {FIRST}
"""What the partitioner does with other pairs of a model and a mesh."""
FLOAT64 = 8
"""Bytes."""


def program(config, layout):
    """The gradient of a loss, and its tangent along itself."""
    model = replace(build(config, dtype="float64"), layout=layout)

    def loss(params, batch):
        if layout is not None:
            params, batch = layout.kept(params, params), layout.cut(batch)
        logs = jax.nn.log_softmax(model.logits(params, batch[:, :-1]))
        return -jnp.mean(jnp.take_along_axis(logs, batch[:, 1:, None], axis=-1))

    def both(params, along, batch):
        return jax.jvp(lambda given: jax.grad(loss)(given, batch), (params,), (along,))

    return jax.jit(both)


def measured(names):
    """Of each case: how far off one device it is, what moves, and the largest that is gathered."""
    rng, found, want = np.random.default_rng(3), {}, {}
    batch = rng.integers(0, VOCAB, (BATCH, LENGTH + 1))
    for name in names:
        of, _, mesh = name.partition(", ")
        config = MODELS[of]
        fresh = jax.jit(build(config).init)(jax.random.key(0))
        params = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), fresh)
        along = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape)), params)
        if of not in want:
            want[of] = along, program(config, None)(params, along, batch)
        along, expected = want[of]
        layout = Layout(mesh_of(*MESHES[mesh]))
        there = [layout.place(tree, params) for tree in (params, along)]
        compiled = program(config, layout).lower(*there, batch).compile()
        text = compiled.as_text() or ""
        apart = [
            float(np.max(np.abs(one - other)) / np.max(np.abs(other)))
            for one, other in zip(
                jax.tree.leaves(compiled(*there, batch)), jax.tree.leaves(expected), strict=True
            )
        ]
        found[name] = {
            "apart": max(apart),
            "moved": {kind: list(each) for kind, each in work_in(text).moved.items()},
            "gathered": gathered(text),
            "parameters": sum(leaf.size for leaf in jax.tree.leaves(params)),
        }
    return found


def gathered(text):
    """Elements of the arrays of floating point numbers that are put together, each once."""
    shapes = re.findall(r"= f64\[([\d,]+)\]\S* all-gather", text)
    return sorted({int(np.prod([int(n) for n in shape.split(",")])) for shape in shapes})


def asked(*names):
    done = subprocess.run(
        [sys.executable, __file__, *names],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "JAX_NUM_CPU_DEVICES": str(VIRTUAL),
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",  # small programs, each run once
            "NPROC": str(8 * VIRTUAL),
        },
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def first():
    return asked(FIRST)


@pytest.fixture(scope="module")
def further():
    return asked(*sorted(FURTHER))


# Twenty seconds: two programs of a tangent of a gradient, one of them for eight devices, which is
# what a mesh makes of experts and no other test sees.
@pytest.mark.parametrize("name", cells(CASES, FURTHER))
def test_devices_pass_their_own_tokens_through_experts(name, request):
    """The same to rounding, and tokens stay: what is sent is gradients, once, and no more."""
    row = request.getfixturevalue("further" if name in FURTHER else "first")[name]
    assert row["apart"] < 1e-12
    # A matrix is put together at a time, or those of a block's experts; no tokens.
    whole = BATCH * LENGTH * FEATURES
    assert max(row["gathered"]) <= 4 * 16 * FEATURES < whole
    if MESHES[name.partition(", ")[2]][2] == 1:  # else activations are summed over `tensor`
        gradients = 2 * 2 * row["parameters"] * FLOAT64  # two of all parameters, a ring sends twice
        assert row["moved"]["all-reduce"][1] < 1.25 * gradients


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    assert len(jax.devices()) == VIRTUAL
    print(json.dumps(measured(sys.argv[1:] or CASES)))
