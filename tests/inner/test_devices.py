"""Trainings on a mesh of devices: this file runs itself in a process with eight virtual ones."""

import gc
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np
import pytest
from cells import cells
from recipes import tiny
from toys_on_a_mesh import OVER_AN_AXIS, TOYS, apart, on_a_mesh, over_an_axis

from metatune.data import sampled_batches, stratified_batches
from metatune.fit.searching.checkpoints import SearchCheckpoints
from metatune.fit.searching.search import Search
from metatune.hypergrad import MixFlow, as_argument, hypergradient, programs, train
from metatune.hypergrad.segments import fetch
from metatune.inner import prepare
from metatune.inner.devices import resolved
from metatune.inner.metrics import held_out_batches
from metatune.models import Layout, abstract_mesh_of, build
from metatune.recipe import schema
from metatune.recipe.faults import RecipeError
from metatune.train.checkpoints import Position, TrainingCheckpoints

VIRTUAL = 8
BATCH, STEPS, SEGMENT = 8, 4, 2
LLAMA = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 264,
}
GPT2 = {"model_type": "gpt2", "n_embd": 16, "n_layer": 2, "n_head": 4, "vocab_size": 264}
GEMMA3 = {
    **LLAMA,
    "model_type": "gemma3_text",
    "intermediate_size": 32,
    "head_dim": 4,
    "query_pre_attn_scalar": 4,
    "sliding_window": 8,
}
NANOCHAT = {**LLAMA, "model_type": "nanochat", "intermediate_size": 32}
LORA = {"lora": schema.LoraSpec(rank=4, alpha=8.0, targets=("q_proj", "down_proj"))}
# A rounding of a first gradient near zero comes back 1 / √eps_root times as large.
ADAM = schema.AdamWSpec(learning_rate=1e-2, eps_root=1e-5)
MODELS = {
    "llama": (LLAMA, {}, (2, 2, 2)),
    "gpt2": (GPT2, {}, (2, 4, 1)),
    "gemma3": (GEMMA3, {}, (1, 4, 2)),
    "nanochat": (NANOCHAT, {}, (1, 4, 2)),
    "lora": (LLAMA, LORA, (8, 1, 1)),
}
OPTIMIZERS = {
    "muon": schema.MuonSpec(learning_rate=1e-2),
    "muonh": schema.MuonHSpec(learning_rate=1e-2, eps_root=1e-5),
    "soap": schema.SoapSpec(learning_rate=1e-2, eps_root=1e-5, precondition_frequency=2),
    "adafactor": schema.AdafactorSpec(learning_rate=1e-2, min_dim_size_to_factor=4),
}
FURTHER = {
    "reverse",
    "mixflow, recomputed gradients",
    "forward, in chunks",
    "forward gradient, whole basis",
    "forward gradient, in chunks",
    "forward gradient over an axis",
    "forward of a population over an axis",
    "zeroth order",
    "gpt2",
    "gemma3",
    "nanochat",
    "lora",
    "muonh",
    "soap",
    "adafactor",
}
"""What differs from another of its table by what a mesh doesn't see, or is seen without one."""


def cases(names):
    """A parameter for each, further ones among the thorough tests."""
    return cells(list(names), FURTHER.intersection(names))


def recipe(config, mesh, **inner):
    found = tiny(
        data={"batch_size": BATCH},
        inner={"optimizer": ADAM, "steps": STEPS, **inner},
        devices=schema.DevicesSpec(*mesh),
    )
    whole = {**(found.model.config or {}), **config} if "model_type" not in config else config
    model = schema.ModelSpec(config=whole, remat=True, loss_chunk=16)
    return replace(found, model=model)


# In the process with eight devices.

COMPILED = []
"""Seconds of each program that was compiled, or found in JAX's cache on disk."""


def listen(event, duration_secs, **_):
    if event == "/jax/core/compile/backend_compile_duration":
        COMPILED.append(duration_secs)


def chosen(table, further):
    """The rows of a table that are asked for."""
    return {name: row for name, row in table.items() if (name in FURTHER) == further}


def sought(training):
    """A hypergradient of a recipe's training, and what it begins with."""
    eta, state = training.initial_eta(), training.initialise(jax.random.key(0))
    corpus = training.corpus
    drawn = stratified_batches(
        corpus, seed=(1,), batch_size=BATCH, shares=training.trajectory(eta).mixture
    )
    held_out = held_out_batches(
        training.recipe.outer, corpus, "validation", seed=(2,), sequences=BATCH
    )
    estimator = MixFlow(SEGMENT)
    result = hypergradient(
        training.reweighted, eta, state, drawn, held_out, steps=STEPS, estimator=estimator
    )
    return state, result, drawn


def models(further):
    """Hypergradients in float32 on meshes of one sort each."""
    found = {}
    for name, (config, inner, mesh) in chosen(MODELS, further).items():
        one = sought(prepare(recipe(config, (1, 1, 1), **inner)))[1]
        training = prepare(recipe(config, mesh, **inner))
        state, several, drawn = sought(training)
        COMPILED.clear()
        sought(training)
        again = len(COMPILED)
        found[name] = {
            "apart": apart(several.gradient, one.gradient),
            "state": apart(several.state.params, one.state.params),
            "moved": [
                str(before.sharding)
                for before, after in zip(
                    jax.tree.leaves(state), jax.tree.leaves(several.state), strict=True
                )
                if not before.sharding.is_equivalent_to(after.sharding, before.ndim)
            ],
            "compiled_again": again,
            "largest_share": share(state.params),
        }
        if name == "llama":
            found[name]["gathered"] = gathered(training, state, drawn)
    return found


def share(tree):
    """What the first device holds of a tree's arrays."""
    leaves = jax.tree.leaves(tree)
    return sum(leaf.addressable_data(0).size for leaf in leaves) / sum(x.size for x in leaves)


def gathered(training, state, drawn):
    """Elements of the largest array that the program of a segment puts together."""
    lowered = programs.forward.lower(
        as_argument(training.reweighted),
        MixFlow(SEGMENT),
        training.initial_eta(),
        state,
        fetch(drawn, 0, SEGMENT, SEGMENT),
    )
    text = lowered.compile().as_text() or ""
    shapes = re.findall(r"= f32\[([\d,]+)\]\S* all-gather", text)
    return sorted({int(np.prod([int(n) for n in shape.split(",")])) for shape in shapes})


def ran(training, state, first, stop):
    """Steps of plain training."""
    eta = training.initial_eta()
    drawn = sampled_batches(
        training.corpus, seed=(3,), batch_size=BATCH, shares=training.trajectory(eta).mixture
    )
    return train(
        training.sampled, eta, state, drawn, steps=stop - first, start=first, segment=SEGMENT
    )


def optimizers(further):
    """Trainings of optimizers whose states aren't all like parameters."""
    found = {}
    for name, optimizer in chosen(OPTIMIZERS, further).items():
        one = prepare(recipe(LLAMA, (1, 1, 1), optimizer=optimizer))
        several = prepare(recipe(LLAMA, (2, 4, 1), optimizer=optimizer))
        before = several.initialise(jax.random.key(0))
        after = ran(several, before, 0, STEPS)[0]
        alone = ran(one, one.initialise(jax.random.key(0)), 0, STEPS)[0]
        found[name] = {
            "apart": apart(after.params, alone.params),
            "share_before": share(before.opt_state),
            "share_after": share(after.opt_state),
        }
    return found


def resumed(folder, elsewhere):
    """A training that is kept after half of its steps, and goes on there and elsewhere."""
    of = {mesh: prepare(recipe(LLAMA, mesh)) for mesh in ((4, 2, 1), elsewhere)}
    training = of[4, 2, 1]
    half = ran(training, training.initialise(jax.random.key(0)), 0, STEPS // 2)[0]
    with TrainingCheckpoints(Path(folder), 1) as kept:
        kept.save(Position(STEPS // 2, half, 0.0))
        whole = ran(training, half, STEPS // 2, STEPS)[0]
        found = {}
        for mesh, other in of.items():
            position = kept.latest(other.shapes())
            assert position is not None
            devices = {len(x.sharding.device_set) for x in jax.tree.leaves(position.state)}
            after = ran(other, position.state, STEPS // 2, STEPS)[0]
            found[str(mesh)] = {"apart": apart(after, whole), "devices": sorted(devices)}
    for mesh, other in of.items():
        found[str(mesh)]["search"] = carried(half, other, Path(folder) / "search")
    return found


def carried(state, training, folder):
    """Whether a search's checkpoint gives back a state, bit for bit and where a training has it."""
    with SearchCheckpoints(folder) as kept:
        kept.save(Search(1, {}, (), {}, inner=state))  # once: there is one of that step then
        like = training.initialise(jax.random.key(0))
        back = kept.latest(lambda phase: Search(0, {}, (), {}, inner=like))
    return back is not None and all(
        np.array_equal(one, other) and one.sharding.is_equivalent_to(there.sharding, one.ndim)
        for one, other, there in zip(*map(jax.tree.leaves, (back.inner, state, like)), strict=True)
    )


def process(arguments, **environment):
    done = subprocess.run(
        [sys.executable, __file__, *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def asked(*arguments):
    # Threads for all collectives of all devices at once: where there are fewer, as on two cores,
    # XLA's collectives on a CPU wait for each other for ever.
    threads = {"NPROC": str(8 * VIRTUAL)}
    return process(arguments, JAX_NUM_CPU_DEVICES=str(VIRTUAL), **threads)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return asked(str(tmp_path_factory.mktemp("checkpoints")))


@pytest.fixture(scope="module")
def further(tmp_path_factory):
    return asked(str(tmp_path_factory.mktemp("checkpoints")), "further")


@pytest.fixture
def row(name, request):
    """A table's row, of the process that has it."""
    told = request.getfixturevalue("further" if name in FURTHER else "found")
    tables = [told[which] for which in ("toys", "over an axis", "models", "optimizers")]
    (found,) = [table[name] for table in tables if name in table]
    return found


@pytest.mark.parametrize("name", cases(TOYS))
def test_every_estimator_is_the_same_on_a_mesh(row):
    assert row["apart"] < 1e-12 and row["value"] < 1e-12
    assert row["devices"] == VIRTUAL and row["free"]


@pytest.mark.parametrize("name", cases(OVER_AN_AXIS))
def test_directions_and_members_have_an_axis(row, name):
    """Of a device are a fourth of them, half of each."""
    assert row["apart"] < 1e-12 and row["value"] < 1e-12
    assert row["devices"] == VIRTUAL and row["free"]
    assert row["share"] == (1 / 8 if "population" in name else 1 / 2)
    # Of a population's directions none is cut but by its members.
    alone = "forward" in name and "population" not in name
    assert row["of_tangents"] == ([1 / 4] if alone else [1.0] if "forward" in name else [])


@pytest.mark.parametrize("name", cases(MODELS))
def test_models_have_the_same_hypergradients_on_meshes(row, name):
    mesh = MODELS[name][2]
    assert 0 < row["apart"] < 1e-5 and row["state"] < 1e-5
    assert row["moved"] == []
    assert row["compiled_again"] == 0
    if name != "lora":
        # All but norms, biases and what one mesh axis can't cut.
        assert row["largest_share"] < 1 / (mesh[1] * mesh[2]) + 0.15


def test_parameters_are_put_together_block_by_block(found):
    """No array is as large as those of all layers, nor as any but one matrix of a block."""
    matrices = {16 * 16, 8 * 16, 16 * 16, 264 * 16}
    halves = {size // MODELS["llama"][2][2] for size in matrices}  # of which each device has one
    assert set(found["models"]["llama"]["gathered"]) <= halves


@pytest.mark.parametrize("name", cases(OPTIMIZERS))
def test_states_of_optimizers_are_cut_as_the_parameters(row, name):
    # Eigenvectors of eigenvalues that lie close turn by a multiple of a rounding.
    assert row["apart"] < (1e-4 if name == "soap" else 1e-6)
    assert row["share_before"] == row["share_after"] < (0.9 if name == "adafactor" else 0.3)


def test_a_training_goes_on_on_other_devices(found):
    rows = found["resumed"]
    assert rows["(4, 2, 1)"] == {"apart": 0.0, "devices": [8], "search": True}
    assert rows["(1, 1, 1)"]["search"]
    assert 0 < rows["(1, 1, 1)"]["apart"] < 1e-5 and rows["(1, 1, 1)"]["devices"] == [1]


@pytest.mark.thorough
def test_a_training_goes_on_on_fewer_devices(further):
    row = further["resumed"]["(2, 2, 1)"]
    assert row["search"] and row["devices"] == [4] and 0 < row["apart"] < 1e-5


def test_auto_takes_the_devices_that_divide_all_batches(found):
    assert found["auto"] == {"8, 8": 8, "12, 8": 4, "8, 6": 2, "forward": 1, "population": 1}


# Here, on one device.


def test_a_mesh_larger_than_the_devices_is_refused():
    with pytest.raises(RecipeError) as caught:
        prepare(recipe(LLAMA, (1, 2, 1)))
    (fault,) = caught.value.faults
    assert str(fault) == (
        "devices = {'data': 1, 'fsdp': 2, 'tensor': 1, 'members': 1}: asks for 2 devices; this "
        "process has 1 (cpu); lower an axis, or leave it out for what there is"
    )


@pytest.mark.parametrize(
    ("mesh", "config", "said"),
    [
        ((1, 3, 1), {}, "devices.fsdp = 3: doesn't divide the model's hidden_size, 16"),
        ((1, 1, 4), {}, "devices.tensor = 4: doesn't divide the model's num_key_value_heads, 2"),
        (
            (1, 1, 2),
            {"vocab_size": 259},
            "devices.tensor = 2: doesn't divide the model's vocab_size, 259; choose a divisor of "
            "it, or a model with 260",
        ),
    ],
)
def test_an_axis_that_does_not_divide_the_model_is_refused(mesh, config, said):
    with pytest.raises(RecipeError) as caught:
        prepare(recipe({**LLAMA, **config}, mesh))
    assert any(str(fault).startswith(said) for fault in caught.value.faults)


def test_one_device_has_no_layout():
    training = prepare(tiny())
    assert training.layout is None and training.model.layout is None
    assert resolved(tiny()) == schema.DevicesSpec()


def abstract(transposed=False):
    return Layout(abstract_mesh_of(2, 2, 2), transposed)


@pytest.mark.parametrize(
    ("path", "shape", "spec"),
    [
        ("model.embed_tokens.weight", (8, 4), ("tensor", "fsdp")),
        ("model.layers.self_attn.q_proj.weight", (3, 8, 4), (None, "tensor", "fsdp")),
        ("model.layers.self_attn.o_proj.weight", (3, 4, 8), (None, "fsdp", "tensor")),
        ("model.layers.mlp.down_proj.lora_A", (3, 2, 8), (None, None, "tensor")),
        ("model.layers.mlp.down_proj.lora_B", (3, 4, 2), (None, "fsdp")),
        ("model.layers.mlp.up_proj.lora_A", (3, 2, 4), (None, None, "fsdp")),
        ("model.layers.mlp.up_proj.lora_B", (3, 8, 2), (None, "tensor")),
        ("model.layers.input_layernorm.weight", (3, 4), ()),
        ("model.layers.mlp.router.weight", (3, 8, 4), (None, None, "fsdp")),
        ("lm_head.weight", (9, 5), ()),
    ],
)
def test_names_say_which_axis_is_cut(path, shape, spec):
    assert tuple(abstract().stored(tuple(path.split(".")), shape).spec) == spec


def test_matrices_of_gpt2_are_cut_along_the_other_axis():
    layout = abstract(transposed=True)
    path = ("model", "layers", "mlp", "down_proj", "weight")
    assert tuple(layout.stored(path, (3, 8, 4)).spec) == (None, "tensor", "fsdp")
    assert tuple(layout.used(path, (3, 8, 4)).spec) == (None, "tensor")


def test_what_is_like_a_parameter_lies_as_it_does():
    params = {"a": {"up_proj": {"weight": jax.ShapeDtypeStruct((8, 4), jnp.float32)}}}
    weight = params["a"]["up_proj"]
    factored = {"row": jnp.zeros(8), "column": jnp.zeros(4), "none": jnp.zeros(1)}
    places = abstract().shardings(
        {
            "muon": {"a": {"up_proj": {"weight": jnp.zeros((8, 4))}}},
            "factored": [{"a": {"up_proj": {"weight": leaf}}} for leaf in factored.values()],
            "count": jnp.zeros((), jnp.int32),
        },
        {"a": {"up_proj": weight}},
    )
    specs = jax.tree.map(lambda place: tuple(place.spec), places)
    assert specs["muon"]["a"]["up_proj"]["weight"] == ("tensor", "fsdp")
    assert [each["a"]["up_proj"]["weight"] for each in specs["factored"]] == [
        ("tensor",),
        ("fsdp",),
        (),
    ]
    assert specs["count"] == ()


def test_the_vocabulary_may_be_larger_than_the_tokenizer_s():
    assert build(GPT2, vocab_size=259).config.vocab_size == 264


def auto():
    """How many devices `auto` takes, by sizes of batches, estimator and population."""
    plain = tiny(data={"batch_size": 8})
    many = schema.PopulationSpec(members=2)
    rows = {
        "8, 8": plain,
        "12, 8": tiny(data={"batch_size": 12}),
        "8, 6": tiny(data={"batch_size": 8}, outer={"test": schema.FinalTestSpec(sequences=6)}),
        "forward": tiny(data={"batch_size": 8}, outer={"estimator": schema.ForwardSpec()}),
        "population": tiny(data={"batch_size": 8}, outer={"population": many}),
    }
    return {name: resolved(row).count for name, row in rows.items()}


def main(folder, *words):
    """Prints what is telling, or all else; checkpoints are kept in the folder."""
    further = bool(words)
    told = {
        "toys": on_a_mesh(chosen(TOYS, further)),
        "over an axis": over_an_axis(chosen(OVER_AN_AXIS, further)),
        "models": models(further),
        "optimizers": optimizers(further),
    }
    told["resumed"] = resumed(folder, (2, 2, 1) if further else (1, 1, 1))
    if not further:
        told["auto"] = auto()
    print(json.dumps(told))


if __name__ == "__main__":
    assert len(jax.devices()) == VIRTUAL
    gc.set_threshold(200_000)  # as in conftest.py
    jax.monitoring.register_event_duration_secs_listener(listen)
    main(*sys.argv[1:])
