"""Learned updates in exports: the same steps as those of the inner training."""

import dataclasses
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from recipes import CODE, tiny

from metatune import artefact
from metatune.artefact import ArtefactError
from metatune.artefact.exporters import EXPORTERS, export
from metatune.fit.making import artefact_of
from metatune.inner import prepare
from metatune.recipe import schema

STEPS = 10
ADAMW = schema.AdamWSpec(learning_rate=1e-2, clip_norm=1.0, eps=1e-4)  # PyTorch's has no eps_root
SGD = schema.SGDSpec(learning_rate=1e-1, weight_decay=0.1)
TRAIN = ("down_proj", "model.norm")  # matrices of two layers, and a vector
RECIPE = tiny(
    {"hidden_size": 4, "intermediate_size": 6, "num_hidden_layers": 2, "num_attention_heads": 1},
    data={"domains": {"code": CODE}, "batch_size": 2},
    inner={"steps": STEPS, "train": TRAIN, "optimizer": ADAMW},
    tune=schema.TuneSpec(),
)


def by_name(names, tree):
    """Arrays of a tree like the parameters, by checkpoint name."""
    found = {}
    for leaf, array in zip(jax.tree.leaves(names), jax.tree.leaves(tree), strict=True):
        rows = array if leaf.stacked else array[None]
        found |= {name: np.asarray(row) for name, row in zip(leaf.names, rows, strict=True)}
    return found


@pytest.fixture(params=["adamw learned", "sgd kept"], scope="module")
def trained(request):
    """The artefact of some networks, and parameters and gradients of a training at these."""
    kind, size = request.param.split()
    learned = schema.LearnedUpdateSpec(hidden_size=4, step_size=size)
    recipe = dataclasses.replace(
        RECIPE,
        inner=schema.InnerSpec({"adamw": ADAMW, "sgd": SGD}[kind], steps=STEPS, train=TRAIN),
        tune=schema.TuneSpec(learned_update=learned),
    )
    training = prepare(recipe)
    start = training.initial_eta()["learned_update"]
    random = np.random.default_rng(0)
    noise = jnp.asarray(0.5 * random.normal(size=start.shape), start.dtype)
    eta = {"learned_update": start + noise}
    state = training.initialise(jax.random.key(0))

    @jax.jit
    def update(grads, state, step):
        hyper = training.sampled.hyper_at(eta, step)
        return training.sampled.update(grads, state.opt_state, state.params, hyper)

    params, gradients = [by_name(training.names, state.params)], []
    for step in range(STEPS):
        grads = jax.tree.map(
            lambda p: jnp.asarray(random.normal(size=p.shape), p.dtype), state.params
        )
        state = type(state)(*update(grads, state, jnp.int32(step)))
        params.append(by_name(training.names, state.params))
        gradients.append(by_name(training.names, grads))
    return artefact_of(training, eta, {}), params, gradients


@pytest.fixture
def exported(trained, tmp_path, load_module, monkeypatch):
    """Exports to a target, and imports what it wrote."""
    made = trained[0]

    def build(target):
        # As it is read back from the folder of a run.
        artefact.write(tmp_path / "artefact", made, "")
        export(artefact.load(tmp_path / "artefact"), target, tmp_path / "out")
        monkeypatch.syspath_prepend(tmp_path / "out")
        monkeypatch.delitem(sys.modules, "metatune_learned_update", raising=False)
        return load_module(tmp_path / "out")

    return build


def same(found, expected, start):
    """Whether parameters moved alike, to rounding: to a part in ten thousand of what they moved."""
    for name, want in expected.items():
        moved = np.abs(want - start[name]).max()
        assert moved > 1e-4
        np.testing.assert_allclose(found[name], want, rtol=1e-5, atol=5e-5 * moved)


def test_optax_takes_the_same_steps(trained, exported):
    _, params, gradients = trained
    optimizer = exported("optax").optimizer(STEPS)
    now = {name: jnp.asarray(p) for name, p in params[0].items()}
    state = optimizer.init(now)

    @jax.jit
    def step(gradient, state, now):
        updates, state = optimizer.update(gradient, state, now)
        return optax.apply_updates(now, updates), state

    for gradient, expected in zip(gradients, params[1:], strict=True):
        now, state = step(gradient, state, now)
        same(now, expected, params[0])


def torch_model(params):
    model = torch.nn.Module()
    for name, value in params.items():
        *path, leaf = name.split(".")
        at = model
        for part in path:
            if not hasattr(at, part):
                at.add_module(part, torch.nn.Module())
            at = getattr(at, part)
        at.register_parameter(leaf, torch.nn.Parameter(torch.tensor(value)))
    return model


def test_torch_takes_the_same_steps_and_resumes(trained, exported):
    made, params, gradients = trained
    module = exported("torch")
    model = torch_model(params[0])
    optimizer = module.optimizer(model, STEPS)
    schedule = module.Schedule(optimizer, STEPS)
    named = dict(model.named_parameters())
    for step, (gradient, expected) in enumerate(zip(gradients, params[1:], strict=True)):
        if step == STEPS // 2:
            held = optimizer.state_dict(), schedule.state_dict()
            optimizer = module.optimizer(model, STEPS)
            schedule = module.Schedule(optimizer, STEPS)
            optimizer.load_state_dict(held[0])
            schedule.load_state_dict(held[1])
        for name, parameter in named.items():
            parameter.grad = torch.tensor(gradient[name])
        if norm := made.optimizer.settings["clip_norm"]:
            torch.nn.utils.clip_grad_norm_(model.parameters(), norm)
        optimizer.step()
        schedule.step()
        same({name: p.detach().numpy() for name, p in named.items()}, expected, params[0])


def test_who_cant_take_it_says_so_and_leaves_it_out(trained, tmp_path):
    made = trained[0]
    able = {
        name for name, each in EXPORTERS.items() if each.capabilities["learned_update"] == "exact"
    }
    assert able == {"optax", "torch"}
    with pytest.raises(ArtefactError, match="json can't express it: a learned update: 2 networks"):
        export(made, "json", tmp_path / "out")
    done = export(made, "json", tmp_path / "out", lossy=True)
    assert any("a learned update" in line for line in done.dropped)
    assert artefact.load(tmp_path / "out").learned_update is None
