"""What a plan says of a mesh, against XLA's analysis on devices that are there.

This file runs itself in a process with eight virtual ones.
"""

import io
import json
import math
import os
import re
import subprocess
import sys
from dataclasses import replace
from functools import partial
from itertools import permutations
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from cells import cells
from recipes import changed, tiny
from rich.console import Console
from typer.testing import CliRunner

from metatune.cli.commands import app
from metatune.data import stratified_batches
from metatune.hypergrad import Member, hypergradient, hypergradients, programs
from metatune.hypergrad.reverse.adjoint import Adjoint
from metatune.hypergrad.segments import inexact
from metatune.hypergrad.stores import device_bytes
from metatune.inner import estimators, prepare
from metatune.inner.metrics import held_out_batches
from metatune.plan import NotPredicted, mesh
from metatune.plan.mesh import axes, growing, planning, table
from metatune.plan.mesh import programs as planned
from metatune.plan.mesh.accelerators import Accelerator
from metatune.plan.mesh.bound import most_bytes
from metatune.plan.mesh.work_in_hlo import work_in
from metatune.plan.reverse_mode import saved_by, traced, work_of
from metatune.recipe import schema, writing
from metatune.recipe.faults import RecipeError
from metatune.transfer.sized import sizes as sizes_of

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

REVERSE = ("forward", "pullback", "objective")
OTHERS = {
    "forward": (
        {"estimator": schema.ForwardSpec(segment=2)},
        {"learning_rates": schema.LearningRatesSpec(per="global", windows=2), "mixture": None},
        ("push",),
    ),
    "population": (
        {"population": schema.PopulationSpec(members=2)},
        {},
        REVERSE,
    ),
    "zeroth order": (
        {"estimator": schema.ZerothOrderSpec(directions=2, chunk=2, segment=2)},
        {},
        ("advance_each", "advance", "value_each"),
    ),
    "robust": ({"robust": schema.RobustSpec(widths=(1, 2))}, {}, REVERSE),
    "forward with a start": (
        {
            "estimator": schema.ForwardSpec(segment=2, chunk=6),
            "fresh": schema.FreshSpec(initialisation=False),
        },
        {
            "learning_rates": schema.LearningRatesSpec(per="global", windows=2),
            "mixture": None,
            "initialisation": schema.PointSpec(parameters=("model.norm.weight",)),
        },
        ("push",),
    ),
    "start": (
        {"fresh": schema.FreshSpec(initialisation=False)},
        {"initialisation": schema.PointSpec()},
        REVERSE,
    ),
}
"""Of each way changes of `outer` and `tune`, and the programs that it runs."""
ALONG = {"forward over an axis": "forward", "population over an axis": "population"}
"""Ways with directions or members on an axis of the mesh of their own, by those they are like."""
OTHERS |= {name: OTHERS[like] for name, like in ALONG.items()}
CALLED = {
    "push": "tangents",
    "advance": "training",
    "advance_each": "trainings at a time",
    "value_each": "objective",
}
"""What a plan calls a program that isn't called by its own name."""


def work(training):
    return work_of(training, training.recipe.outer.estimator)


def recipe_of(way):
    outer, tune, _ = OTHERS[way]
    lora = LORA if way in ("forward", "forward over an axis") else None
    found = changed(RECIPE, outer=outer, tune=tune, inner={"lora": lora})
    over = schema.DevicesSpec(data=2, fsdp=2, members=2)
    return replace(found, devices=over) if way in ALONG else found


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
        assert analysis is not None
        found[name] = sizes(analysis)
    first = jax.devices()[0]
    for name, tree in {"state": state, "saved": ran.saved, "frozen": training.frozen}.items():
        shards = [s for leaf in jax.tree.leaves(tree) for s in leaf.addressable_shards]
        found[name] = sum(shard.data.nbytes for shard in shards if shard.device == first)
    return found


def ran(way):
    """XLA's analysis of the programs that a hypergradient runs, as it calls them at last."""
    training, found = prepare(recipe_of(way)), {}
    eta = training.initial_eta()

    drawn = stratified_batches(
        training.corpus, seed=(1,), batch_size=8, shares=training.trajectory(eta).mixture
    )
    outer = RECIPE.outer
    held_out = held_out_batches(outer, training.corpus, "validation", seed=(2,), sequences=8)

    def spied(name, program):
        def call(*arguments):
            found[name] = program.lower(*arguments)
            return program(*arguments)

        return call

    given = {
        "steps": RECIPE.inner.steps,
        "estimator": estimators.build(training.recipe.outer.estimator),
        "outer_batches": held_out,
    }
    with pytest.MonkeyPatch.context() as patch:
        for name in OTHERS[way][2]:
            patch.setattr(programs, name, spied(name, getattr(programs, name)))
        if way.startswith("population"):
            members = [
                Member(partial(training.initialise, jax.random.key(seed)), drawn) for seed in (0, 1)
            ]
            hypergradients(training.reweighted, eta, members, **given)
        elif way == "robust":  # the last is the largest
            members = [
                Member(
                    partial(each.training.initialise, jax.random.key(0)),
                    drawn,
                    problem=each.training.reweighted,
                )
                for each in sizes_of(training)
            ]
            hypergradients(training.reweighted, eta, members, vmap=False, states=False, **given)
        else:
            state = training.initialise(jax.random.key(0))
            key = jax.random.key(3)
            hypergradient(training.reweighted, eta, state, drawn, key=key, **given)
    return {name: sizes(lowered.compile().memory_analysis()) for name, lowered in found.items()}


def sizes(analysis):
    return [getattr(analysis, f"{kind}_size_in_bytes") for kind in ("argument", "output", "temp")]


# Here, on one device.


@pytest.fixture(scope="module")
def training():
    return prepare(RECIPE, elsewhere=True)


@pytest.fixture(scope="module")
def texts():
    """Of the programs of `programs_of_mesh`, in their order, once they are compiled."""
    return []


@pytest.fixture(scope="module")
def programs_of_mesh(training, texts):
    def heard(text):
        texts.append(text)
        return work_in(text)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planned, "work_in", heard)
        patch.setattr(planned.cache, "read", lambda key: {})
        return planned.compiled(traced(work(training)), VIRTUAL, lambda *_: None)


def asked(*ways):
    environment = {"JAX_NUM_CPU_DEVICES": str(VIRTUAL), "NPROC": str(8 * VIRTUAL)}
    done = subprocess.run(
        [sys.executable, __file__, *ways],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def seen():
    return asked("", "forward over an axis")


def test_planned_bytes_are_those_of_devices_that_are_there(training, programs_of_mesh, seen):
    """Bytes of arguments, results and temporary arrays of each device, to the byte."""
    seen = seen[""]
    for name, program in programs_of_mesh.items():
        assert [program.arguments, program.outputs, program.temporary] == seen[name], name
    of = work(training)
    assert device_bytes(of.state()) == seen["state"]
    assert device_bytes(saved_by(of, of.estimator)) == seen["saved"] > 0
    assert of.beside_bytes() == seen["frozen"] > 0


def test_one_matrix_of_one_block_is_put_together_at_a_time(programs_of_mesh, texts):
    """In no program is there anything as large as a logit for each token of a device, besides."""
    blocks = {(1, *leaf) for leaf in permutations((4, 8, 16), 2)}  # halves, along `tensor`
    vocabulary = LLAMA["vocab_size"] // 2
    logits = 2 * 15 * vocabulary
    for name, text in zip(programs_of_mesh, texts, strict=True):
        shapes = {
            kind: [tuple(map(int, found.split(","))) for found in re.findall(expression, text)]
            for kind, expression in (
                ("gathered", r"= f32\[([\d,]+)\]\S* all-gather"),
                ("all", r"= f32\[([\d,]+)\]"),
            )
        }
        assert set(shapes["gathered"]) <= {*blocks, (vocabulary, 16)}, name
        assert len(shapes["gathered"]) > 4, name
        assert max(map(math.prod, shapes["all"])) == logits, name


FURTHER = OTHERS.keys() - {"forward over an axis"}
"""Each in a process of its own with eight devices."""


@pytest.mark.parametrize("way", cells(OTHERS.keys(), FURTHER))
def test_so_are_those_of_other_ways(way, request, monkeypatch):
    there = asked(way) if way in FURTHER else request.getfixturevalue("seen")
    found = {}

    def compiled(*given):
        made = planned.compiled(*given)
        found.update(made)
        return made

    monkeypatch.setattr(planning, "compiled", compiled)
    plan = mesh.on_mesh(prepare(recipe_of(way), elsewhere=True), FEW_FLOPS, folder=Path())
    for name, sizes in there[way].items():
        program = found[CALLED.get(name, name)]
        assert [program.arguments, program.outputs, program.temporary] == sizes, name
    assert set(there[way]) == set(OTHERS[way][2])
    assert plan.memory is not None and plan.fits and plan.flops > 0
    assert plan.moved["all-gather"].bytes > 0
    assert plan.memory.device > max(program.arguments for program in found.values())


FEW_FLOPS = Accelerator("slow", 2**30, {"float32": 1e6}, 1e9)


@pytest.fixture(scope="module")
def plan(training, programs_of_mesh):
    return mesh.on_mesh(training, FEW_FLOPS, folder=Path())


def test_a_device_of_a_mesh_computes_its_share(training, programs_of_mesh, plan):
    """Four steps in two segments; what isn't computed is counted by the plan's own model."""
    assert plan.fits and plan.memory is not None and plan.pace is not None
    forward, back = (programs_of_mesh[name].work.flops for name in ("forward", "pullback"))
    objective = work(training).objective_gradients() * forward / 2
    assert plan.flops == pytest.approx(2 * forward + 2 * back + objective)
    sent = sum(each.bytes for each in plan.moved.values())
    assert plan.pace.hypergradient == pytest.approx(plan.flops / 0.4e6 + sent / 1e9)
    alone = mesh.on_mesh(
        prepare(replace(RECIPE, devices=schema.DevicesSpec())), None, folder=Path()
    )
    assert alone.pace is None and not alone.moved
    assert alone.memory is not None
    bound = most_bytes(prepare(replace(RECIPE, devices=schema.DevicesSpec())), 2**40)
    assert alone.memory.device < bound < 20 * alone.memory.device
    # Products are shared evenly but for an adapter's, whose factors are used whole.
    assert 1 / 8 <= plan.flops / alone.flops < 1 / 6


def test_the_smallest_mesh_is_grown_axis_by_axis(monkeypatch):
    """States of 100 in `fsdp` parts fit 30 from 4 on, activations from 8 on; then tensor grows."""

    def states(training):
        return 100 // training.recipe.devices.fsdp

    def on_mesh(training, device, **_):
        parts = training.recipe.devices
        needed = 240 // parts.count
        compiled.append(axes.named(parts))
        blank = mesh.MeshPlan(parts, schema.MixFlowSpec(), None, limit[0], "h100")
        return blank._replace(memory=planning.Memory(needed, 0, 0, 0, 0, 0, 0))

    compiled, limit = [], [30]
    monkeypatch.setattr(growing, "states_bytes", states)
    monkeypatch.setattr(growing, "on_mesh", on_mesh)
    monkeypatch.setattr(growing, "limit_of", lambda _: limit[0])
    one = prepare(replace(RECIPE, devices=schema.DevicesSpec()), elsewhere=True)
    found = mesh.smallest(one, None, folder=Path())
    assert compiled == ["fsdp=4", "fsdp=8"]
    assert found.why.startswith("fsdp=8 is the smallest that fits; fsdp was grown, which cuts")
    assert [each.split(":")[0] for each in found.tried] == ["one device", "fsdp=2", "fsdp=4"]
    limit[0] = 15
    found = mesh.smallest(one, None, folder=Path())
    assert found.plan.devices == schema.DevicesSpec(fsdp=8, tensor=2)
    assert "tensor was grown, which cuts heads" in found.why
    limit[0] = 1  # two key-value heads, eight sequences
    found = mesh.smallest(one, None, folder=Path())
    assert not found.plan.fits
    assert found.why.startswith("no mesh fits: fsdp=8,tensor=2 is the largest that divides")
    limit[0] = 1000
    assert mesh.smallest(one, None, folder=Path()).why == "one device is enough"


def test_what_isn_t_predicted_of_a_mesh_is_refused():
    objective = schema.ObjectiveSpec(measure="accuracy", sequences=8, micro_batch=8)
    recipe = changed(RECIPE, outer={"estimator": schema.AutoSpec(), "objective": objective})
    with pytest.raises(NotPredicted, match="^outer.estimator.kind = auto: of an objective that"):
        mesh.on_mesh(prepare(recipe, elsewhere=True), None, folder=Path())


@pytest.mark.parametrize(
    ("text", "problem"),
    [("fsdp", "must be AXIS=PARTS"), ("fsdp=a", "must be AXIS"), ("data=2,data=4", "names data")],
)
def test_a_mesh_that_can_t_be_read(text, problem):
    with pytest.raises(RecipeError, match=problem):
        axes.override(text)


NARROW = ["model.config.hidden_size=12", "model.config.num_attention_heads=2"]


@pytest.fixture
def recipe_file(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(writing.to_yaml(replace(RECIPE, devices="auto")))
    return path


def told(*arguments):
    done = CliRunner().invoke(app, ["plan", *map(str, arguments)])
    return done.exit_code, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--devices", "data=3"], "cuts a batch into data x fsdp = 3 parts"),
        (["--devices", "fsdp=8", *NARROW], "doesn't divide the model's hidden_size, 12"),
        (["--devices", "tensor=4"], "doesn't divide the model's num_key_value_heads, 2"),
        (["--devices", "tensor=2", "model.config.vocab_size=265"], "vocab_size, 265"),
        (["--devices", "fdsp=2"], "devices.fdsp = 2: unknown key"),
        (["--devices", "fsdp=0"], "devices.fsdp = 0: must be a whole number of 1 or above"),
        (["--device", "h1"], "--device h1: must be one of a100-40gb, a100, h100"),
    ],
)
def test_a_mesh_that_fit_would_refuse_is_refused_before_compute(arguments, problem, recipe_file):
    code, shown, error = told(recipe_file, *arguments)
    assert code == 2 and not shown
    assert problem in " ".join(error.split())


def test_the_command_tells_of_each_device(recipe_file, programs_of_mesh):
    mesh_of = ["--devices", "data=2,fsdp=2,tensor=2", "--device", "h100"]
    code, shown, _ = told(recipe_file, *mesh_of, "--json")
    assert code == 0
    found = json.loads(shown)
    assert found["devices"] == {"data": 2, "fsdp": 2, "tensor": 2, "members": 1}
    assert found["fits"] and found["limit_bytes"] == int(0.92 * 80e9)
    bytes_of = found["bytes"]
    parts = ("state", "carry", "activations", "logits")
    assert bytes_of["device"] == sum(bytes_of[part] for part in parts)
    assert 0 < found["seconds"]["hypergradient"] < found["seconds"]["run"]
    assert set(found["collectives"]) >= {"all-gather", "all-reduce"}


def test_what_is_shown(plan):
    console = Console(record=True, width=200, file=io.StringIO())
    console.print(table.lines(plan, "the smallest", ("one device: 2 GiB",)))
    shown = console.export_text()
    for words in (
        "mesh: data=2,fsdp=2,tensor=2; 8 x slow, 942.1 MiB of each to use",
        "each device: ",
        "fits: yes",
        "all-gather: ",
        "at least: hypergradient ",
        "not timed, but counted at 40%",
        "too small: one device: 2 GiB",
        "pick: the smallest",
        "set: devices.data=2 devices.fsdp=2 devices.tensor=2",
    ):
        assert words in shown
    small = plan._replace(limit_bytes=1, pace=None)
    console.print(table.lines(small))
    shown = console.export_text()
    assert "fits: no" in shown and "name a device" in shown and "set:" not in shown


if __name__ == "__main__":
    assert len(jax.devices()) == VIRTUAL
    print(json.dumps({way: ran(way) if way else analysed() for way in sys.argv[1:]}))
