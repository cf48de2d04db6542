import math
import re
from collections import Counter

import numpy as np
import pytest
import torch
from cells import cells
from torch import nn

from metatune.artefact import Mixture, Optimizer
from metatune.artefact.exporters import export

STEPS = 20


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.q_proj = nn.Linear(4, 4, bias=False)
        self.norm = nn.LayerNorm(4)

    def forward(self, x):
        return x + self.q_proj(self.norm(x))


class Inner(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed_tokens = nn.Embedding(8, 4)
        self.layers = nn.ModuleList([Block(), Block()])


class Tiny(nn.Module):
    """Names like a Llama's; the output layer is tied to the embedding."""

    def __init__(self):
        super().__init__()
        self.model = Inner()
        self.lm_head = nn.Linear(4, 8, bias=False)
        self.lm_head.weight = self.model.embed_tokens.weight

    def forward(self, tokens):
        x = self.model.embed_tokens(tokens)
        for layer in self.model.layers:
            x = layer(x)
        return self.lm_head(x)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Tiny()


@pytest.fixture
def artefact(make, model, settings):
    names = [name for name, _ in model.named_parameters()]
    whole = make(names, STEPS, settings)
    # Two parameters of one curve, of which one decays: same rate, two groups.
    curves = whole.learning_rates.parameters
    curves[names[1]] = curves[names[0]]
    return whole


@pytest.fixture
def module(artefact, tmp_path, load_module):
    export(artefact, "torch", tmp_path / "out")
    return load_module(tmp_path / "out")


def rates_of(model, optimizer):
    by_id = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    return {name: by_id[id(p)] for name, p in model.named_parameters()}


def train_step(model, optimizer, schedule):
    nn.functional.cross_entropy(model(torch.arange(8)), torch.arange(8).roll(1)).backward()
    optimizer.step()
    schedule.step()
    optimizer.zero_grad()


def test_every_rate_at_every_update(artefact, module, model):
    optimizer = module.optimizer(model, STEPS)
    schedule = module.Schedule(optimizer, STEPS)
    for step in range(STEPS):
        for name, rate in rates_of(model, optimizer).items():
            expected = artefact.learning_rates.parameters[name][step]
            assert math.isclose(rate, expected, rel_tol=1e-12), (name, step)
        train_step(model, optimizer, schedule)
    # A trainer steps the schedule once more after its last update: the last rate stays.
    assert (
        rates_of(model, optimizer)["model.layers.0.norm.bias"]
        == (artefact.learning_rates.parameters["model.layers.0.norm.bias"][-1])
    )


def test_an_update_moves_by_its_own_rate_after_decay(make, model, tmp_path, load_module):
    settings = {"kind": "sgd", "momentum": 0.0, "nesterov": False, "clip_norm": None}
    names = [name for name, _ in model.named_parameters()]
    artefact = make(names, STEPS, {**settings, "weight_decay": 0.5})
    export(artefact, "torch", tmp_path / "sgd")
    optimizer = load_module(tmp_path / "sgd").optimizer(model, STEPS)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    nn.functional.cross_entropy(model(torch.arange(8)), torch.arange(8).roll(1)).backward()
    optimizer.step()
    for name, p in model.named_parameters():
        assert p.grad is not None
        decay = 0.5 if name in artefact.optimizer.decayed else 0.0
        rate = artefact.learning_rates.parameters[name][0]
        expected = before[name] - rate * (p.grad + decay * before[name])
        torch.testing.assert_close(p.detach(), expected)


def test_settings_and_decay_are_those_of_the_tuned_optimizer(module, model, artefact):
    optimizer = module.optimizer(model, STEPS)
    settings = artefact.optimizer.settings
    first, *others = optimizer.param_groups
    assert first["curve"] == artefact.optimizer.decayed[0] == "model.embed_tokens.weight"
    assert [group["weight_decay"] for group in others] == [0.0] * len(others)
    assert first["weight_decay"] == settings["weight_decay"]
    if settings["kind"] == "adamw":
        assert isinstance(optimizer, torch.optim.AdamW)
        assert (first["betas"], first["eps"]) == ((0.9, 0.95), 1e-8)
    else:
        assert isinstance(optimizer, torch.optim.SGD)
        assert (first["momentum"], first["nesterov"]) == (0.0, False)


def test_groups_share_a_curve_and_a_decay(module, model, artefact):
    groups = module.param_groups(model, STEPS)
    sizes = Counter(len(group["params"]) for group in groups)
    count = len(list(model.parameters()))
    shared = artefact.optimizer.settings["weight_decay"] == 0
    assert sizes == ({2: 1, 1: count - 2} if shared else {1: count})


@pytest.mark.parametrize("stop", cells([0, 7, 19], [0, 19]))
def test_a_resumed_schedule_is_exact(module, model, stop):
    def run(start, end, state):
        torch.manual_seed(0)
        fresh = Tiny()
        optimizer = module.optimizer(fresh, STEPS)
        schedule = module.Schedule(optimizer, STEPS)
        if state:
            fresh.load_state_dict(state[0])
            optimizer.load_state_dict(state[1])
            schedule.load_state_dict(state[2])
        rates = []
        for _ in range(start, end):
            rates.append(rates_of(fresh, optimizer))
            train_step(fresh, optimizer, schedule)
        return rates, (fresh.state_dict(), optimizer.state_dict(), schedule.state_dict())

    straight, (weights, _, _) = run(0, STEPS, None)
    first, state = run(0, stop, None)
    second, (resumed, _, _) = run(stop, STEPS, state)
    assert first + second == straight
    for name, weight in weights.items():
        assert torch.equal(weight, resumed[name])


def test_the_curves_are_not_in_the_state(artefact, module, model, make, tmp_path, load_module):
    optimizer = module.optimizer(model, STEPS)
    schedule = module.Schedule(optimizer, STEPS)
    for _ in range(5):
        train_step(model, optimizer, schedule)
    state = schedule.state_dict()
    assert state["last_epoch"] == 5
    assert state["_agreed"] == {"total_steps": STEPS}
    others = [value for key, value in state.items() if key != "_agreed"]
    assert not any(callable(value) or isinstance(value, dict) for value in others)
    for curve in artefact.learning_rates.parameters.values():
        curve *= 3
    export(artefact, "torch", tmp_path / "anew")
    anew = load_module(tmp_path / "anew")
    other = anew.optimizer(model, STEPS)
    resumed = anew.Schedule(other, STEPS)
    resumed.load_state_dict(state)
    expected = {name: c[5] for name, c in artefact.learning_rates.parameters.items()}
    assert rates_of(model, other) == expected
    assert resumed.get_last_lr() == [group["lr"] for group in other.param_groups]


def test_a_longer_training_stretches_the_curves(artefact, module, model):
    optimizer = module.optimizer(model, 2 * STEPS)
    schedule = module.Schedule(optimizer, 2 * STEPS)
    for step in range(2 * STEPS):
        for name, rate in rates_of(model, optimizer).items():
            assert rate == artefact.learning_rates.parameters[name][step // 2]
            assert rate == artefact.learning_rate(name, step, 2 * STEPS)
        train_step(model, optimizer, schedule)


def test_frozen_parameters_need_no_curve(module, model):
    model.extra = nn.Linear(2, 2).requires_grad_(False)
    optimizer = module.optimizer(model, STEPS)
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in model.parameters() if p.requires_grad}


def test_unmatched_parameters_are_listed_on_both_sides(module, model, tmp_path):
    model.model.layers[0].k_proj = model.model.layers[0].q_proj
    del model.model.layers[0].q_proj
    with pytest.raises(ValueError) as caught:
        module.param_groups(model, STEPS)
    path = tmp_path / "out" / "tuned.json"
    assert str(caught.value) == (
        f"1 trainable parameters of the model have no curve in {path}:\n"
        "  model.layers.0.k_proj.weight (nearest: model.layers.0.q_proj.weight)\n"
        "1 curves have no parameter in the model:\n"
        "  model.layers.0.q_proj.weight\n"
        "Give the whole model, or say that it is a part (`partial=True`).\n"
        "Freeze those parameters, or map names by `checkpoint_name`."
    )


def test_names_in_memory_may_differ(module, model):
    wrapped = nn.ModuleDict({"inside": model})
    with pytest.raises(ValueError, match="7 trainable parameters"):
        module.param_groups(wrapped, STEPS)
    optimizer = module.optimizer(
        wrapped, STEPS, checkpoint_name=lambda name: name.removeprefix("inside.")
    )
    assert rates_of(model, optimizer) == rates_of(model, module.optimizer(model, STEPS))


def test_nesterov_without_momentum_is_plain(make, model, tmp_path, load_module):
    names = tuple(name for name, _ in model.named_parameters())
    for momentum, nesterov in ((0.0, False), (0.5, True)):
        kind = {"kind": "sgd", "weight_decay": 0.0, "clip_norm": None}
        settings = {**kind, "momentum": momentum, "nesterov": True}
        artefact = make(names, optimizer=Optimizer(settings, ()))
        export(artefact, "torch", tmp_path / "sgd", overwrite=True)
        optimizer = load_module(tmp_path / "sgd").optimizer(model, STEPS)
        assert {group["nesterov"] for group in optimizer.param_groups} == {nesterov}


def test_shares_and_loss_weights(module, artefact):
    for total in (STEPS, 7, 33):
        for step in range(total):
            shares = module.mixture(step, total)
            assert shares == artefact.mixture_at(step, total)
            assert abs(sum(shares.values()) - 1) < 1e-12
            weights, expected = (
                module.loss_weights(step, total),
                artefact.loss_weights_at(step, total),
            )
            assert list(weights) == list(expected)
            np.testing.assert_allclose(list(weights.values()), list(expected.values()), rtol=1e-12)


def test_draws_follow_the_shares_as_they_move(make, tmp_path, load_module):
    shares = np.array([[1.0, 0.0], [0.25, 0.75]])
    mixture = Mixture((0.0, 0.5), "constant", ("code", "drama"), shares)
    export(make(mixture=mixture), "torch", tmp_path / "out")
    module = load_module(tmp_path / "out", "metatune_mixture")
    sources = {
        "code": (("code", i) for i in range(8000)),
        "drama": (("drama", i) for i in range(8000)),
    }
    stream = iter(module.Mixed(sources, total_steps=4, batch_size=1000))
    drawn = [next(stream) for _ in range(4000)]
    assert {domain for domain, _ in drawn[:2000]} == {"code"}
    late = Counter(domain for domain, _ in drawn[2000:])
    # 2000 draws: five standard deviations of the share are 0.048.
    assert abs(late["drama"] / 2000 - 0.75) < 0.048
    for domain in ("code", "drama"):
        order = [i for name, i in drawn if name == domain]
        assert order == list(range(len(order)))
    short = list(module.Mixed({"code": iter(range(5)), "drama": iter(range(5))}, 4, 1000))
    assert short == list(range(5))
    with pytest.raises(ValueError, match=r"sources \['code'\]: must be the domains of .*drama"):
        module.Mixed({"code": range(5)}, 4, 1000)


def test_what_was_not_tuned_is_said(make, tmp_path, load_module):
    export(make(mixture=None, loss_weights=None), "torch", tmp_path / "out")
    module = load_module(tmp_path / "out")
    path = re.escape(str(tmp_path / "out" / "tuned.json"))
    with pytest.raises(ValueError, match=rf"^{path}: holds no mixture; tune it \(`tune: {{mix"):
        module.mixture(0, STEPS)
    with pytest.raises(ValueError, match=rf"^{path}: holds no loss_weights; tune it"):
        module.loss_weights(0, STEPS)


def test_another_version_is_refused(module, model, tmp_path):
    other = tmp_path / "other.json"
    other.write_text('{"format": "metatune-artefact", "version": 9}')
    with pytest.raises(ValueError, match=r"must be \('metatune-artefact', 1\), is .*9\); export"):
        module.param_groups(model, STEPS, path=other)


def test_steps_are_checked(module):
    with pytest.raises(ValueError, match="step -1 of 20: steps count from 0, totals from 1"):
        module.mixture(-1, STEPS)
    with pytest.raises(ValueError, match="step 0 of 0: steps count from 0, totals from 1"):
        module.mixture(0, 0)
