"""Optimizers side by side, as targets have them: against the training here, update by update."""

import copy
import dataclasses
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from torch import nn

from metatune import artefact as artefacts
from metatune.artefact import ArtefactError, Optimizer, OptimizerSchedules
from metatune.artefact.exporters import export
from metatune.inner import optimizers
from metatune.models import ParameterNames
from metatune.recipe import schema
from metatune.tunables import Hyper

STEPS = 12
LAYERS = ("layers.0", "layers.1")
NAMES = {
    "embed": ParameterNames(("embed.weight",), stacked=False),
    "layers": {
        "up": ParameterNames(tuple(f"{layer}.up.weight" for layer in LAYERS), stacked=True),
        "norm": ParameterNames(tuple(f"{layer}.norm.weight" for layer in LAYERS), stacked=True),
    },
    "lm_head": {"weight": ParameterNames(("lm_head.weight",), stacked=False)},
}
SHAPES = {
    "embed": (5, 4),
    "layers": {"up": (2, 6, 4), "norm": (2, 4)},
    "lm_head": {"weight": (5, 4)},
}
CLIP = 3.0


def drawn(seed):
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda shape: jnp.asarray(rng.normal(size=shape), jnp.float32),
        SHAPES,
        is_leaf=lambda node: isinstance(node, tuple),
    )


def by_name(tree):
    found = {}
    for leaf, value in zip(jax.tree.leaves(NAMES), jax.tree.leaves(tree), strict=True):
        found |= dict(zip(leaf.names, value if leaf.stacked else [value], strict=True))
    return {name: np.asarray(value) for name, value in found.items()}


def groups(nesterov=True):
    return schema.GroupsSpec(
        groups=(
            schema.MuonGroupSpec(
                0.02, match="layers", momentum=0.8, nesterov=nesterov, b1=0.7, weight_decay=0.3
            ),
            schema.SGDGroupSpec(0.05, match="embed", momentum=0.7, weight_decay=0.2),
            schema.AdamWGroupSpec(0.003, b1=0.6, b2=0.7, eps=1e-2, weight_decay=0.1),
        ),
        clip_norm=CLIP,
    )


SCHEDULES = OptimizerSchedules(
    (0.0, 0.5),
    "constant",
    {
        "groups[0].momentum": np.array([0.8, 0.9]),
        "groups[2].b1": np.array([0.6, 0.5]),
        "clip_norm": np.array([CLIP, 2.0]),
    },
)


def artefact_of(spec, make, schedules=None):
    """With a rate of its own for each parameter at every update."""
    params = drawn(0)
    names = [name for leaf in jax.tree.leaves(NAMES) for name in leaf.names]
    made = make(names, STEPS)
    settings = {"kind": "groups", "clip_norm": spec.clip_norm, "groups": []}
    for group, members in zip(spec.groups, optimizers.members(spec, NAMES, params), strict=True):
        own = dataclasses.asdict(group.alone)
        for key in ("learning_rate", "schedule", "decay", "clip_norm"):
            del own[key]
        settings["groups"].append({"match": group.match, **own, **members})
    decayed = optimizers.decayed(spec, NAMES, params)
    return dataclasses.replace(made, optimizer=Optimizer(settings, decayed, schedules))


def trained(spec, artefact, init=None):
    """By metatune's own optimizers: the parameters after each update."""
    built = optimizers.build(spec, NAMES)
    params = drawn(0)
    state, update, found = built.init(params), jax.jit(built.update), []
    for step in range(STEPS):
        curves = artefact.learning_rates.parameters

        def rate(leaf, p, step=step, curves=curves):
            own = np.array([curves[name][step] for name in leaf.names], np.float32)
            return jnp.asarray(
                own.reshape((len(own) if leaf.stacked else 1,) + (1,) * (p.ndim - 1))
            )

        tuned = artefact.optimizer_at(step, STEPS) if artefact.optimizer.schedules else {}
        numbers = {
            key: jnp.float32(tuned[key])
            for key in (artefact.optimizer.schedules.values if tuned else ())
        }
        rates = jax.tree.map(rate, NAMES, params)
        hyper = Hyper(rates, jnp.ones(1), jnp.ones(1), optimizer=numbers or None)
        params, state = update(drawn(step + 1), state, params, hyper)
        found.append(by_name(params))
    return found


class Tiny(nn.Module):
    """Of the parameters of `NAMES`."""

    def __init__(self):
        super().__init__()
        for name, value in by_name(drawn(0)).items():
            *path, last = name.split(".")
            at: Any = self
            for part in path:
                if part not in at._modules:
                    at.add_module(part, nn.Module())
                at = at._modules[part]
            at.register_parameter(last, nn.Parameter(torch.tensor(value)))


def torch_step(module, model, optimizer, schedule, step):
    for name, gradient in by_name(drawn(step + 1)).items():
        model.get_parameter(name).grad = torch.tensor(gradient)
    norm = module.clip_norm(step, STEPS)
    nn.utils.clip_grad_norm_(model.parameters(), norm)
    optimizer.step()
    schedule.step()


@pytest.fixture
def in_float32(monkeypatch):
    """What Muon iterates in; a copy, which it changes in place."""
    monkeypatch.setattr(torch.Tensor, "bfloat16", lambda tensor: tensor.float().clone())


@pytest.mark.parametrize("schedules", [None, SCHEDULES], ids=["fixed", "moving"])
def test_torch_makes_the_updates_of_the_training_here(
    schedules, make, tmp_path, load_module, in_float32
):
    spec = groups(nesterov=False)
    artefact = artefact_of(spec, make, schedules)
    export(artefact, "torch", tmp_path / "out")
    module, model = load_module(tmp_path / "out"), Tiny()
    optimizer = module.optimizer(model, STEPS)
    schedule = module.Schedule(optimizer, STEPS)
    kinds = {type(own).__name__ for own in optimizer.optimizers}
    assert kinds == {"Muon", "SGD", "AdamW"}
    of_muon = [group for group in optimizer.param_groups if group["kind"] == "muon"]
    assert {group["curve"] for group in of_muon} == {f"{layer}.up.weight" for layer in LAYERS}
    assert {group["adjust_lr_fn"] for group in of_muon} == {"original"}
    for step, want in enumerate(trained(spec, artefact)):
        rates = {group["curve"]: group["lr"] for group in optimizer.param_groups}
        for name, rate in rates.items():
            assert rate == pytest.approx(artefact.learning_rates.parameters[name][step], rel=1e-12)
        torch_step(module, model, optimizer, schedule, step)
        for name, p in model.named_parameters():
            np.testing.assert_allclose(
                p.detach().numpy(), want[name], rtol=2e-4, atol=2e-5, err_msg=f"{name}, {step}"
            )


def test_torch_s_own_muon_is_near(make, tmp_path, load_module):
    """Its bfloat16, and its look ahead: as README.md says."""
    spec = groups()
    artefact = artefact_of(spec, make)
    export(artefact, "torch", tmp_path / "out")
    module, model = load_module(tmp_path / "out"), Tiny()
    optimizer = module.optimizer(model, STEPS)
    schedule = module.Schedule(optimizer, STEPS)
    for step in range(STEPS):
        torch_step(module, model, optimizer, schedule, step)
    start, end = by_name(drawn(0)), trained(spec, artefact)[-1]
    off = {}
    for name, p in model.named_parameters():
        moved = np.linalg.norm(end[name] - start[name])
        off[name] = float(np.linalg.norm(p.detach().numpy() - end[name]) / moved)
    assert max(off[name] for name in off if ".up." not in name) < 1e-3
    assert 1e-3 < off["layers.0.up.weight"] < 0.2
    assert "looks ahead" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


def test_trainers_with_its_module_take_groups_too(make, tmp_path):
    artefact = artefact_of(groups(), make)
    export(artefact, "torch", tmp_path / "torch")
    for target in ("hf-trainer", "trl", "axolotl"):
        export(artefact, target, tmp_path / target, lossy=True)
        own, other = (tmp_path / name / "metatune_schedules.py" for name in ("torch", target))
        assert own.read_bytes() == other.read_bytes()
        assert "iterates in bfloat16" in (tmp_path / target / "README.md").read_text("utf-8")
    tuned = (tmp_path / "axolotl" / "tuned.yaml").read_text("utf-8")
    assert "optimizer: adamw_torch_fused" in tuned


def test_a_resumed_torch_training_goes_on_as_it_was(make, tmp_path, load_module):
    export(artefact_of(groups(), make, SCHEDULES), "torch", tmp_path / "out")
    module = load_module(tmp_path / "out")

    def begun():
        model = Tiny()
        optimizer = module.optimizer(model, STEPS)
        return model, optimizer, module.Schedule(optimizer, STEPS)

    model, optimizer, schedule = begun()
    for step in range(4):
        torch_step(module, model, optimizer, schedule, step)
    held = copy.deepcopy((model.state_dict(), optimizer.state_dict(), schedule.state_dict()))
    again, other, later = begun()
    for part, state in zip((again, other, later), held, strict=True):
        part.load_state_dict(state)
    for step in range(4, STEPS):
        torch_step(module, model, optimizer, schedule, step)
        torch_step(module, again, other, later, step)
    for a, b in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)


def nested(named):
    return {name: jnp.asarray(value) for name, value in named.items()}


def by_optax(artefact, tmp_path, load_module):
    """The parameters after each update, as a user of the export makes them."""
    export(artefact, "optax", tmp_path / "optax", overwrite=True)
    tuned = load_module(tmp_path / "optax").optimizer(STEPS)
    params = nested(by_name(drawn(0)))
    state, update, found = tuned.init(params), jax.jit(tuned.update), []
    for step in range(STEPS):
        updates, state = update(nested(by_name(drawn(step + 1))), state, params)
        params = optax.apply_updates(params, updates)
        found.append(params)
    return found


OTHERS = schema.GroupsSpec(
    groups=(
        schema.MuonHGroupSpec(0.02, match="layers", momentum=0.8, b1=0.7),
        schema.AdamHGroupSpec(0.02, match="lm_head", b2=0.9),
        schema.LionGroupSpec(0.003, b1=0.6, decay="all"),
    ),
    clip_norm=None,
)


@pytest.mark.parametrize(
    ("spec", "schedules"),
    [(groups(), SCHEDULES), (OTHERS, None)],
    ids=["muon, sgd, adamw, moving", "muonh, adamh, lion"],
)
def test_optax_makes_the_updates_of_the_training_here(spec, schedules, make, tmp_path, load_module):
    artefact = artefact_of(spec, make, schedules)
    want = trained(spec, artefact)
    for step, found in enumerate(by_optax(artefact, tmp_path, load_module)):
        for name, value in found.items():
            np.testing.assert_allclose(
                value, want[step][name], rtol=2e-4, atol=2e-5, err_msg=f"{name}, {step}"
            )


@pytest.mark.parametrize(
    "spec",
    [
        schema.MuonSpec(0.02, momentum=0.8, clip_norm=CLIP),
        schema.AdamHSpec(0.02, weight_decay=0.1, clip_norm=CLIP),
        schema.MuonHSpec(0.02, weight_decay=0.1, clip_norm=CLIP),
    ],
    ids=lambda spec: spec.kind,
)
def test_optax_has_these_without_groups(spec, make, tmp_path, load_module):
    settings = dataclasses.asdict(spec)
    for key in ("learning_rate", "schedule", "decay"):
        del settings[key]
    names = [name for leaf in jax.tree.leaves(NAMES) for name in leaf.names]
    decayed = optimizers.decayed(spec, NAMES, drawn(0))
    artefact = make(names, STEPS, optimizer=Optimizer(settings, decayed))
    want = trained(spec, artefact)
    for step, found in enumerate(by_optax(artefact, tmp_path, load_module)):
        for name, value in found.items():
            np.testing.assert_allclose(
                value, want[step][name], rtol=2e-4, atol=2e-5, err_msg=f"{name}, {step}"
            )


def test_a_document_of_groups_reads_back_and_is_checked(make, tmp_path):
    artefact = artefact_of(groups(), make, SCHEDULES)
    artefacts.write(tmp_path / "out", artefact, "")
    found = artefacts.load(tmp_path / "out").optimizer
    plain = json.loads(json.dumps(artefact.optimizer.settings))
    assert (found.settings, found.decayed) == (plain, artefact.optimizer.decayed)
    assert found.kinds == ("muon", "sgd", "adamw")
    assert found.numbers["groups[2].b1"] == 0.6
    document = json.loads((tmp_path / "out" / "tuned.json").read_text(encoding="utf-8"))
    assert found.schedules is not None
    for name, curve in SCHEDULES.values.items():
        np.testing.assert_array_equal(found.schedules.values[name], curve)
    own = document["optimizer"]["groups"]
    own[2]["parameters"].remove("lm_head.weight")
    own[1]["momentum"] = -1
    own[0]["orthogonal"][0] = "embed.weight"
    (tmp_path / "out" / "tuned.json").write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(ArtefactError) as refused:
        artefacts.load(tmp_path / "out")
    assert [str(fault).split(";")[0] for fault in refused.value.faults] == [
        "optimizer.groups[0].orthogonal = 'embed.weight': must be one of "
        "optimizer.groups[0].parameters",
        "optimizer.groups[1].momentum = -1: must be a finite number of 0 or above",
        "optimizer.groups = 5: must have each parameter of learning_rates.parameters in one of "
        "them",
    ]


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ("torchtitan", "its DistMuon takes one group of parameters, and so one rate for all"),
        ("olmo-core", "its MuonConfig takes no group_overrides, so that all matrices have one"),
        ("nemo-automodel", "its MuonConfig ignores param_group_overrides, so that all matrices"),
    ],
)
def test_targets_whose_muon_is_another_say_why_they_refuse(target, sentence, make, tmp_path):
    artefact = artefact_of(groups(), make)
    with pytest.raises(ArtefactError, match=sentence) as refused:
        export(artefact, target, tmp_path / "out", lossy=True)
    assert "choose another target: json, csv, optax, torch, hf-trainer" in str(refused.value)


TWO_ADAMS = schema.GroupsSpec(
    groups=(
        schema.AdamWGroupSpec(0.02, match="q_proj|up_proj", b1=0.7, weight_decay=0.3),
        schema.AdamWGroupSpec(0.003, b2=0.9, eps=1e-4, weight_decay=0.1),
    )
)
LLAMA = {
    "embed": ParameterNames(("model.embed_tokens.weight",), stacked=False),
    **{
        part: ParameterNames((f"model.layers.0.{module}.{part}.weight",), stacked=True)
        for module, parts in (
            ("self_attn", ("q_proj", "k_proj", "v_proj", "o_proj")),
            ("mlp", ("gate_proj", "up_proj", "down_proj")),
        )
        for part in parts
    },
}


def llama_of(make):
    """AdamW of two groups, one of which takes the queries alone."""
    names = [name for leaf in jax.tree.leaves(LLAMA) for name in leaf.names]
    settings = {"kind": "groups", "clip_norm": 1.0, "groups": []}
    for group in TWO_ADAMS.groups:
        own = dataclasses.asdict(group.alone)
        for key in ("learning_rate", "schedule", "decay", "clip_norm"):
            del own[key]
        members = tuple(n for n in names if ("q_proj" in n or "up_proj" in n) == bool(group.match))
        settings["groups"].append({"match": group.match, **own, "parameters": members})
    return make(names, STEPS, optimizer=Optimizer(settings, tuple(names)), loss_weights=None)


def test_groups_of_adamw_keep_their_numbers_under_names_of_trainers(make, tmp_path, load_module):
    artefact = llama_of(make)
    export(artefact, "olmo-core", tmp_path / "out")
    module = load_module(tmp_path / "out", "metatune_rates")
    found = {name: group for group in module.groups() for name in group.names}
    queries, keys = (found[f"blocks.0.attention.w_{x}.weight"] for x in "qk")
    assert (queries.numbers["betas"], queries.weight_decay) == ((0.7, 0.95), 0.3)
    assert (keys.numbers["betas"], keys.numbers["eps"]) == ((0.9, 0.9), 1e-4)
    for step in range(STEPS):
        rate = artefact.learning_rates.parameters["model.layers.0.self_attn.q_proj.weight"][step]
        assert module.rate_at(queries, step, STEPS) == rate


def test_what_a_trainer_fuses_of_two_optimizers_is_refused(make, tmp_path, load_module):
    export(llama_of(make), "torchtitan", tmp_path / "out")
    module = load_module(tmp_path / "out", "metatune_rates")
    with pytest.raises(ValueError, match="wqkv.weight: its parts are of several of the tuned"):
        module.groups(fused="mean")
