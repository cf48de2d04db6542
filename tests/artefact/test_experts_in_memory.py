"""Experts that transformers holds in one tensor: they have the rates of the checkpoint's names."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file

from metatune.artefact import ArtefactError, LearningRates, Multipliers, Optimizer
from metatune.artefact.exporters import export

pytestmark = pytest.mark.needs("torch")

STEPS = 6
SIZES: Any = {
    "vocab_size": 16,
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "tie_word_embeddings": False,
}
CONFIGS = {
    "qwen3_moe": transformers.Qwen3MoeConfig(
        **SIZES, num_experts=3, num_experts_per_tok=2, moe_intermediate_size=4
    ),
    "olmoe": transformers.OlmoeConfig(**SIZES, num_experts=3, num_experts_per_tok=2),
}


@pytest.fixture(params=CONFIGS)
def model(request) -> Any:
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(CONFIGS[request.param])


def saved(model, folder) -> dict[str, tuple[str, ...]]:
    """Of each parameter, the tensors of the checkpoint that hold it: transformers says which."""
    places = {}
    with torch.no_grad():
        for number, (name, parameter) in enumerate(model.named_parameters()):
            parameter.fill_(number)
            places[number] = name
    model.save_pretrained(folder)
    found: dict[str, tuple[str, ...]] = {}
    for own, tensor in load_file(folder / "model.safetensors").items():
        (number,) = tensor.unique().tolist()
        name = places[int(number)]
        found[name] = (*found.get(name, ()), own)
    return found


def artefact_of(make, names, rate):
    """With curves that `rate` gives names."""
    curves = {name: rate(name) * np.linspace(1.0, 0.1, STEPS) for name in names}
    factors = {name: (rate(name),) for name in names}
    rates = LearningRates(
        tuple(t / STEPS for t in range(STEPS)),
        "constant",
        curves,
        Multipliers((0.0,), factors, {name: (name,) for name in names}),
    )
    made = make(names, STEPS, learning_rates=rates, mixture=None, loss_weights=None)
    decayed = tuple(name for name in names if "norm" not in name)
    return dataclasses.replace(made, optimizer=dataclasses.replace(made.optimizer, decayed=decayed))


def by_kind(name):
    """One rate for all experts of a block: it tells blocks, attention and experts apart."""
    return 1e-3 * (1 + len(name.split(".experts")[0]) + 10 * (".1." in name.split(".experts")[0]))


def by_expert(name):
    return by_kind(name) * (1 + sum(map(ord, name)) % 7)


def rates_in(module, model, steps=STEPS):
    """The rate of each parameter at each update, and its weight decay."""
    optimizer = module.optimizer(model, steps)
    schedule = module.Schedule(optimizer, steps)
    names, found = {p: name for name, p in model.named_parameters()}, []
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    for _ in range(steps):
        groups = [(names[p], group) for group in optimizer.param_groups for p in group["params"]]
        found.append({name: (group["lr"], group["weight_decay"]) for name, group in groups})
        optimizer.step()
        schedule.step()
    return found


@pytest.mark.parametrize("target", ["torch", "hf-trainer", "trl"])
def test_every_parameter_has_the_rate_of_its_experts(make, model, target, tmp_path, load_module):
    held = saved(model, tmp_path / "model")
    assert {len(parts) for parts in held.values()} == {1, 3, 6}
    names = [name for parts in held.values() for name in parts]
    artefact = artefact_of(make, names, by_kind)
    export(artefact, target, tmp_path / "out")
    curves, decayed = artefact.learning_rates.parameters, set(artefact.optimizer.decayed)
    for step, found in enumerate(rates_in(load_module(tmp_path / "out"), model)):
        assert set(found) == set(held)
        for name, (rate, decay) in found.items():
            assert {curves[part][step] for part in held[name]} == {rate}
            assert {0.1 if part in decayed else 0.0 for part in held[name]} == {decay}


@pytest.mark.parametrize("target", ["torch", "hf-trainer", "trl"])
def test_experts_that_differ_have_their_mean_where_that_is_allowed(
    make, model, target, tmp_path, load_module
):
    held = saved(model, tmp_path / "model")
    artefact = artefact_of(make, [name for own in held.values() for name in own], by_expert)
    if target == "torch":  # a model may have its experts one by one
        export(artefact, target, tmp_path / "whole")
        with pytest.raises(ValueError, match="[36] parameters of .*, whose learning rates differ"):
            load_module(tmp_path / "whole").optimizer(model, STEPS)
    else:
        with pytest.raises(ArtefactError, match="holds experts in one tensor, and rates within"):
            export(artefact, target, tmp_path / "out")
    done = export(artefact, target, tmp_path / "out", lossy=True)
    curves, off = artefact.learning_rates.parameters, 0.0
    for step, found in enumerate(rates_in(load_module(tmp_path / "out"), model)):
        for name, (rate, _) in found.items():
            own = np.array([curves[part][step] for part in held[name]])
            assert rate == pytest.approx(np.exp(np.log(own).mean()), rel=1e-12)
            off = max(off, float(np.abs(rate / own - 1).max()))
    assert done.merged is not None
    assert done.merged.startswith("fitted: 4 tensors of experts")
    assert done.merged.endswith(f"off by up to {100 * off:.3g} %")
    assert done.merged in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


def test_decays_that_differ_within_a_tensor_are_refused(make, model, tmp_path, load_module):
    held = saved(model, tmp_path / "model")
    artefact = artefact_of(make, [name for own in held.values() for name in own], by_kind)
    (some,) = [name for name in artefact.optimizer.decayed if "1.mlp.experts.2.down" in name]
    other = tuple(name for name in artefact.optimizer.decayed if name != some)
    optimizer = dataclasses.replace(artefact.optimizer, decayed=other)
    artefact = dataclasses.replace(artefact, optimizer=optimizer)
    with pytest.raises(ArtefactError, match="weight decays or optimizers differ") as refused:
        export(artefact, "hf-trainer", tmp_path / "out", lossy=True)
    assert "model.layers.1.mlp.experts.down_proj" in str(refused.value)
    export(artefact, "torch", tmp_path / "out")
    with pytest.raises(ValueError, match="3 parameters of .*, whose weight decays differ"):
        load_module(tmp_path / "out").optimizer(model, STEPS)


ADAMW = {"weight_decay": 0.1, "b1": 0.9, "b2": 0.9, "eps": 1e-8, "eps_root": 0.0}
MUON = {**ADAMW, "momentum": 0.9, "nesterov": False, "newton_schulz_steps": 5}


def test_muon_of_experts_in_one_tensor_is_refused(make, model, tmp_path, load_module):
    held = saved(model, tmp_path / "model")
    artefact = artefact_of(make, [name for own in held.values() for name in own], by_kind)
    names = tuple(artefact.learning_rates.parameters)
    matrices = tuple(name for name in names if ".experts." in name)
    others = tuple(name for name in names if name not in matrices)
    of_muon = {"parameters": matrices, "orthogonal": matrices, "inputs_first": ()}
    groups = [
        {**MUON, "match": "experts", "kind": "muon", **of_muon},
        {**ADAMW, "match": None, "kind": "adamw", "parameters": others},
    ]
    settings = {"kind": "groups", "clip_norm": None, "groups": groups}
    artefact = dataclasses.replace(artefact, optimizer=Optimizer(settings, names[:1]))
    with pytest.raises(ArtefactError, match="torch.optim.Muon takes matrices alone") as refused:
        export(artefact, "hf-trainer", tmp_path / "out")
    assert "optimizer.groups[0].kind = 'muon'" in str(refused.value)
    export(artefact, "torch", tmp_path / "out")
    with pytest.raises(ValueError, match=r"experts.0.*holds it in a tensor \[3, \d+, 8\]"):
        load_module(tmp_path / "out").optimizer(model, STEPS)
