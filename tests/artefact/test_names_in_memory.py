"""Names of parameters as wrappers of modules make them, and every number that a group carries."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

from metatune.artefact.exporters import export

pytestmark = pytest.mark.needs("torch")

STEPS = 20


def tiny() -> Any:
    torch.manual_seed(0)
    block = nn.ModuleDict({"q_proj": nn.Linear(3, 3, bias=False), "norm": nn.LayerNorm(3)})
    return nn.ModuleDict({"model": nn.ModuleDict({"layers": nn.ModuleList([block])})})


class Wrapper(nn.Module):
    """A module within another, under the attribute that a wrapper of PyTorch uses."""

    def __init__(self, inner, attribute):
        super().__init__()
        setattr(self, attribute, inner)


class Adapted(nn.Module):
    """A linear module as PEFT 0.21 has it: `lora_A.default.weight`, `base_layer.weight`."""

    def __init__(self, base):
        super().__init__()
        self.base_layer = base.requires_grad_(False)
        self.lora_A = nn.ModuleDict({"default": nn.Linear(3, 2, bias=False)})
        self.lora_B = nn.ModuleDict({"default": nn.Linear(2, 3, bias=False)})


class Saved(nn.Module):
    """A module that PEFT trains whole: `modules_to_save.default.weight`."""

    def __init__(self, base):
        super().__init__()
        self.original_module = nn.LayerNorm(3).requires_grad_(False)
        self.modules_to_save = nn.ModuleDict({"default": base})


def wrapped(how) -> Any:
    model = tiny()
    block = model["model"]["layers"][0]
    if how == "checkpointed":
        model["model"]["layers"][0] = checkpoint_wrapper(block)
    elif how == "checkpointed in compiled in data parallel":
        model["model"]["layers"][0] = checkpoint_wrapper(block)
        return Wrapper(torch.compile(model, backend="eager"), "module")
    elif how == "compiled":
        return torch.compile(model, backend="eager")
    elif how == "sharded":
        model["model"]["layers"][0] = Wrapper(block, "_fsdp_wrapped_module")
    return model


PLAIN = [name for name, _ in tiny().named_parameters()]


@pytest.fixture
def exported(make, tmp_path, load_module):
    def build(names, **changes):
        artefact = make(names, STEPS, **changes)
        export(artefact, "torch", tmp_path / "out", overwrite=True)
        return artefact, load_module(tmp_path / "out")

    return build


@pytest.mark.parametrize(
    "how",
    ["plain", "checkpointed", "compiled", "sharded", "checkpointed in compiled in data parallel"],
)
def test_wrappers_are_no_part_of_a_name(exported, how):
    artefact, module = exported(PLAIN)
    model = wrapped(how)
    groups = module.optimizer(model, STEPS).param_groups
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    assert len(rates) == len(PLAIN)
    for name, parameter in zip(PLAIN, model.parameters(), strict=True):
        assert rates[id(parameter)] == artefact.learning_rate(name, 0, STEPS)


@pytest.mark.parametrize("prefix", ["", "base_model.model."])
def test_adapters_have_the_names_that_peft_saves(exported, prefix):
    layer = f"{prefix}model.layers.0."
    names = [f"{layer}q_proj.lora_A.weight", f"{layer}q_proj.lora_B.weight"]
    names += [f"{layer}norm.weight", f"{layer}norm.bias"]
    artefact, module = exported(names)
    model = tiny()
    block = model["model"]["layers"][0]
    block["q_proj"], block["norm"] = Adapted(block["q_proj"]), Saved(block["norm"])
    model = Wrapper(Wrapper(model, "model"), "base_model")
    groups = module.optimizer(model, STEPS).param_groups
    found = {group["curve"]: group["lr"] for group in groups}
    assert found == {name: artefact.learning_rate(name, 0, STEPS) for name in names}


def test_a_curve_without_a_parameter_is_refused_but_for_a_part(exported):
    _, module = exported([*PLAIN, "model.layers.1.q_proj.weight"])
    with pytest.raises(ValueError, match=r"^1 curves have no parameter in the model:\n  model\.l"):
        module.optimizer(tiny(), STEPS)
    assert len(module.optimizer(tiny(), STEPS, partial=True).param_groups) == len(PLAIN)


def test_a_name_of_two_parameters_is_refused(exported):
    _, module = exported(PLAIN)
    model = nn.ModuleDict({"module": tiny(), "_orig_mod": tiny()})
    with pytest.raises(ValueError, match=rf"{PLAIN[0]}: is the name of several parameters"):
        module.optimizer(model, STEPS)


def test_a_name_that_is_there_as_it_is_isnt_changed(exported):
    names = ["module.weight", "weight"]
    artefact, module = exported(names)
    model = nn.ParameterDict({"weight": nn.Parameter(torch.ones(2))})
    model["module"] = nn.ParameterDict({"weight": nn.Parameter(torch.ones(2))})
    found = {g["curve"]: g["lr"] for g in module.optimizer(model, STEPS).param_groups}
    assert found == {name: artefact.learning_rate(name, 0, STEPS) for name in names}


def test_groups_carry_every_number_of_the_tuned_optimizer(exported):
    """Whoever makes the optimizer: PyTorch's own defaults are 0.999, 1e-8 and no momentum."""
    settings = {"kind": "adamw", "weight_decay": 0.1, "b1": 0.8, "b2": 0.95, "eps": 1e-7}
    _, module = exported(PLAIN, settings={**settings, "eps_root": 1e-12, "clip_norm": 1.0})
    for group in torch.optim.AdamW(module.param_groups(tiny(), STEPS)).param_groups:
        assert (group["betas"], group["eps"]) == ((0.8, 0.95), 1e-7)
    settings = {"kind": "sgd", "weight_decay": 0.0, "momentum": 0.9, "nesterov": True}
    _, module = exported(PLAIN, settings={**settings, "clip_norm": None})
    for group in torch.optim.SGD(module.param_groups(tiny(), STEPS)).param_groups:
        assert (group["momentum"], group["nesterov"]) == (0.9, True)


def update(model, optimizer, factor=1.0):
    (factor * torch.stack([p.sum() for p in model.parameters()]).sum()).backward()
    optimizer.step()
    optimizer.zero_grad()


def test_the_schedule_counts_updates_of_the_optimizer(exported):
    """However often it is stepped: micro-batches, processes of accelerate, skipped updates."""
    artefact, module = exported(PLAIN)
    model = tiny()
    optimizer = module.optimizer(model, STEPS)
    schedule = module.Schedule(optimizer, STEPS)
    for step in range(5):
        expected = [artefact.learning_rate(g["curve"], step, STEPS) for g in optimizer.param_groups]
        assert [group["lr"] for group in optimizer.param_groups] == expected
        assert list(schedule.last_used.values()) == [
            artefact.learning_rate(g["curve"], max(0, step - 1), STEPS)
            for g in optimizer.param_groups
        ]
        schedule.step()  # a micro-batch without an update
        update(model, optimizer)
        schedule.step()
        schedule.step()  # another process, as accelerate steps it
    with pytest.raises(ValueError, match="epoch 7: leave it out"):
        schedule.step(7)


@pytest.mark.parametrize("fused", [False, True])
def test_an_update_that_a_scaler_skips_isnt_counted(exported, fused):
    artefact, module = exported(PLAIN)
    model = tiny()
    optimizer = torch.optim.AdamW(module.param_groups(model, STEPS), fused=fused)
    schedule = module.Schedule(optimizer, STEPS)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    name, done = optimizer.param_groups[0]["curve"], 0
    for bad in (False, True, False, False, True):
        factor = float("inf") if bad else 1.0
        loss = factor * torch.stack([p.sum() for p in model.parameters()]).sum()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        schedule.step()
        optimizer.zero_grad()
        done += not bad
        assert schedule.last_epoch == done
        assert optimizer.param_groups[0]["lr"] == artefact.learning_rate(name, done, STEPS)


def test_a_training_of_another_length_isnt_resumed(exported):
    _, module = exported(PLAIN)
    model = tiny()
    schedule = module.Schedule(module.optimizer(model, STEPS), STEPS)
    other = module.Schedule(module.optimizer(model, 40), 40)
    with pytest.raises(ValueError, match="total_steps 40: the training that is resumed had 20"):
        other.load_state_dict(schedule.state_dict())
