"""Numbers of the optimizer that move over training: in an artefact, and in what is exported."""

import csv
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from metatune.artefact import (
    SETTINGS,
    ArtefactError,
    LearningRates,
    Optimizer,
    OptimizerSchedules,
    load,
    write,
)
from metatune.artefact.document import curves as curves_of
from metatune.artefact.exporters import EXPORTERS, export
from metatune.report.artefact_readme import readme, what_is_tuned

NAMES = ("a.weight", "b.weight", "c.bias")
STEPS = 8
ADAMW = {
    "kind": "adamw",
    "weight_decay": 0.1,
    "b1": 0.9,
    "b2": 0.95,
    "eps": 1e-8,
    "eps_root": 0.0,
    "clip_norm": 1.0,
}
SGD = {"kind": "sgd", "weight_decay": 0.1, "momentum": 0.9, "nesterov": False, "clip_norm": 1.0}
LION = {"kind": "lion", "weight_decay": 0.1, "b1": 0.9, "b2": 0.99, "clip_norm": None}
ADOPT = {
    "kind": "adopt",
    "weight_decay": 0.1,
    "b1": 0.9,
    "b2": 0.95,
    "eps": 1e-6,
    "clip_norm": None,
}
DECAY = {"a.weight": np.array([0.1, 0.3]), "b.weight": np.array([0.2, 0.4])}
VALUES = {
    "b1": np.array([0.9, 0.5]),
    "eps": np.array([1e-8, 1e-2]),
    "clip_norm": np.array([1.0, 0.25]),
}


@pytest.fixture
def tuned(make):
    """An artefact whose optimizer changes halfway, at one learning rate."""

    def build(settings=ADAMW, values=VALUES, decay=DECAY):
        rates = LearningRates((0.0,), "constant", {name: np.array([0.01]) for name in NAMES})
        schedules = OptimizerSchedules((0.0, 0.5), "constant", values, decay)
        optimizer = Optimizer(settings, NAMES[:2], schedules)
        nothing = {"mixture": None, "loss_weights": None, "learning_rates": rates}
        nothing["result"] = {
            **dict.fromkeys(("difference", "standard_error")),
            "status": "unfinished",
            "outer_steps": 1,
            "best_outer_step": 0,
        }
        return make(NAMES, STEPS, optimizer=optimizer, **nothing)

    return build


def test_every_number_comes_back(tuned, tmp_path):
    artefact = load(write(tmp_path / "artefact", tuned(), "readme"))
    assert artefact.optimizer.settings == ADAMW
    before, after = artefact.optimizer_at(3, STEPS), artefact.optimizer_at(4, STEPS)
    assert before == {**ADAMW, "weight_decay": {"a.weight": 0.1, "b.weight": 0.2}}
    decay = {"a.weight": 0.3, "b.weight": 0.4}
    changed = {"weight_decay": decay, "b1": 0.5, "eps": 1e-2, "clip_norm": 0.25}
    assert after == {**ADAMW, **changed}


def test_what_was_not_tuned_is_as_it_was(make):
    artefact = make()
    assert artefact.optimizer.schedules is None
    assert artefact.optimizer_at(3, STEPS) == artefact.optimizer.settings


@pytest.mark.parametrize(
    ("values", "decay", "fault"),
    [
        ({"momentum": np.ones(2)}, None, "optimizer.schedules.values = 'momentum': must be one of"),
        ({"b1": np.ones(3)}, None, "optimizer.schedules.values.b1, length = 3: must have one for"),
        ({"b1": -np.ones(2)}, None, "optimizer.schedules.values.b1[0] = -1.0: must be a finite"),
        ({}, {"c.bias": np.ones(2), **DECAY}, "optimizer.schedules.weight_decay = 'c.bias'"),
        ({}, {"a.weight": np.ones(2)}, "optimizer.schedules.weight_decay.b.weight: must have a"),
    ],
)
def test_what_makes_no_sense_is_refused(tuned, tmp_path, values, decay, fault):
    with pytest.raises(ArtefactError) as refused:
        write(tmp_path / "artefact", tuned(ADAMW, values, decay), "readme")
    assert fault in str(refused.value)


def test_reports_show_each_curve_once(tuned):
    artefact = tuned()
    assert what_is_tuned(artefact)[-1] == (
        "optimizer, adamw: weight_decay, b1, eps, clip_norm; 2 stretches of training"
    )
    curves = curves_of(artefact, [0, 7])["optimizer"]
    assert list(curves) == [
        "weight_decay a.weight",
        "weight_decay b.weight",
        "b1",
        "eps",
        "clip_norm",
    ]
    np.testing.assert_array_equal(curves["b1"], [0.9, 0.5])
    assert "| weight_decay b.weight | 0.2 | 0.4 |" in readme(artefact)
    alike = tuned(decay=dict.fromkeys(NAMES[:2], np.array([0.1, 0.2])))
    assert list(alike.optimizer.schedules.curves)[0] == "weight_decay"


def test_tables_hold_every_update(tuned, tmp_path):
    export(tuned(), "csv", tmp_path / "out")
    with open(tmp_path / "out" / "optimizer.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["b1"]) for row in rows] == [0.9] * 4 + [0.5] * 4
    with open(tmp_path / "out" / "weight_decay.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["b.weight"]) for row in rows] == [0.2] * 4 + [0.4] * 4


def gradients():
    rng = np.random.default_rng(1)
    return [{n: rng.normal(size=(3, 2)).astype(np.float32) for n in NAMES} for _ in range(STEPS)]


def trained_by_hand(artefact):
    """Each update as a fresh optax transformation with the numbers of that update."""
    params = {name: jnp.ones((3, 2)) for name in NAMES}
    state = None
    for step, gradient in enumerate(gradients()):
        now = artefact.optimizer_at(step, STEPS)
        if now["kind"] == "adamw":
            inner = optax.scale_by_adam(now["b1"], now["b2"], now["eps"], now["eps_root"])
        elif now["kind"] == "sgd":
            inner = optax.trace(now["momentum"])
        elif now["kind"] == "adopt":
            inner = optax.contrib.scale_by_adopt(now["b1"], now["b2"], now["eps"])
        else:
            inner = optax.scale_by_lion(now["b1"], now["b2"])
        if now["clip_norm"] is not None:
            norm = np.sqrt(sum(np.sum(leaf**2) for leaf in gradient.values()))
            gradient = {n: leaf * min(1, now["clip_norm"] / norm) for n, leaf in gradient.items()}
        decay = {name: now["weight_decay"].get(name, 0.0) * params[name] for name in NAMES}
        if now["kind"] == "sgd":
            gradient = jax.tree.map(jnp.add, gradient, decay)
        state = inner.init(params) if state is None else state
        found, state = inner.update(jax.tree.map(jnp.asarray, gradient), state, params)
        if now["kind"] != "sgd":
            found = jax.tree.map(jnp.add, found, decay)
        params = jax.tree.map(lambda p, d: p - 0.01 * d, params, found)
    return params


SETTINGS_AND_VALUES = [
    pytest.param(ADAMW, VALUES, id="adamw"),
    pytest.param(SGD, {"momentum": np.array([0.9, 0.2])}, id="sgd"),
    pytest.param(LION, {}, id="lion"),
    pytest.param(ADOPT, {"b1": np.array([0.9, 0.5])}, id="adopt"),
]


@pytest.mark.parametrize(("settings", "values"), SETTINGS_AND_VALUES)
def test_optax_trains_as_the_tuned_training_did(tuned, tmp_path, load_module, settings, values):
    artefact = tuned(settings, values)
    export(artefact, "optax", tmp_path / "out")
    optimizer = load_module(tmp_path / "out").optimizer(STEPS)
    params: Any = {name: jnp.ones((3, 2)) for name in NAMES}
    state, update = optimizer.init(params), jax.jit(optimizer.update)
    for gradient in gradients():
        updates, state = update(gradient, state, params)
        params = optax.apply_updates(params, updates)
    for name, want in trained_by_hand(artefact).items():
        np.testing.assert_allclose(params[name], want, rtol=1e-6)


@pytest.mark.parametrize(("settings", "values"), SETTINGS_AND_VALUES[:2])
def test_torch_trains_as_the_tuned_training_did(tuned, tmp_path, load_module, settings, values):
    """Bias correction takes the decays of the update at hand, in both."""
    import torch

    artefact = tuned(settings, values)
    export(artefact, "torch", tmp_path / "out")
    module = load_module(tmp_path / "out")
    model = torch.nn.Module()
    for name in NAMES:
        layer, parameter = name.split(".")
        setattr(model, layer, torch.nn.Module())
        setattr(getattr(model, layer), parameter, torch.nn.Parameter(torch.ones(3, 2)))
    optimizer = module.optimizer(model, STEPS)
    schedule = module.Schedule(optimizer, STEPS)
    for step, gradient in enumerate(gradients()):
        if step == 5:  # go on from a state
            state, where = optimizer.state_dict(), schedule.state_dict()
            json.dumps({key: value for key, value in where.items() if key[0] != "_"})
            optimizer = module.optimizer(model, STEPS)
            schedule = module.Schedule(optimizer, STEPS)
            optimizer.load_state_dict(state)
            schedule.load_state_dict(where)
        for name, parameter in model.named_parameters():
            parameter.grad = torch.from_numpy(gradient[name].copy())
        norm = module.clip_norm(schedule.last_epoch, STEPS)
        assert norm == artefact.optimizer_at(step, STEPS)["clip_norm"]
        torch.nn.utils.clip_grad_norm_(model.parameters(), norm)
        optimizer.step()
        schedule.step()
    trained = dict(model.named_parameters())
    for name, want in trained_by_hand(artefact).items():
        # PyTorch adds 1e-6 to the norm that it clips by.
        np.testing.assert_allclose(trained[name].detach(), want, rtol=1e-5)
    text = (tmp_path / "out" / "README.md").read_text()
    over_time = "clip_norm" in values
    assert ("clip_norm(schedule.last_epoch, total_steps))" in text) == over_time
    assert ("import Schedule, optimizer, clip_norm" in text) == over_time


@pytest.mark.needs("accelerate")
def test_the_trainer_clips_by_the_norm_of_the_update(tuned, tmp_path, load_module):
    """Gradients of norms around 1.8 are clipped at 1, then at 0.25; half of them by a resume."""
    import torch
    from transformers import TrainingArguments

    artefact = tuned()
    export(artefact, "hf-trainer", tmp_path / "out")
    assert "max_grad_norm=1.0,  # of the first update: it moves" in (
        tmp_path / "out" / "README.md"
    ).read_text(encoding="utf-8")
    trainer_of = load_module(tmp_path / "out", "metatune_trainer").TunedTrainer
    given = gradients()

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            for name in NAMES:
                layer, parameter = name.split(".")
                own = torch.nn.Module()
                own.register_parameter(parameter, torch.nn.Parameter(torch.ones(3, 2)))
                self.add_module(layer, own)

        def forward(self, update, labels=None):
            gradient = given[int(update)]
            parts = [(p * torch.tensor(gradient[n])).sum() for n, p in self.named_parameters()]
            return {"loss": torch.stack(parts).sum()}

    class InOrder(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter([{"update": step} for step in range(STEPS)])

    def trained(model, upto, resumed=None, **changes):
        arguments = TrainingArguments(
            output_dir=str(tmp_path / "trained"),
            max_steps=STEPS,
            per_device_train_batch_size=1,
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
            save_steps=STEPS // 2 + 1,
            **{"max_grad_norm": 1.0, **changes},
        )
        trainer = trainer_of(model=model, args=arguments, train_dataset=InOrder())
        if upto < STEPS:
            trainer.callback_handler.callbacks[0].on_step_end = stop_at(upto)
        trainer.train(resume_from_checkpoint=resumed)
        assert arguments.max_grad_norm == {"max_grad_norm": 1.0, **changes}["max_grad_norm"]
        return dict(model.named_parameters())

    def stop_at(upto):
        def on_step_end(args, state, control, **rest):
            control.should_training_stop = control.should_save = state.global_step == upto

        return on_step_end

    trained(Model(), 5)
    parameters = trained(Model(), STEPS, str(tmp_path / "trained" / "checkpoint-5"))
    for name, want in trained_by_hand(artefact).items():
        np.testing.assert_allclose(parameters[name].detach(), want, rtol=1e-5)
    with pytest.raises(ValueError, match="max_grad_norm 0.0: must be above 0, 1.0 say"):
        trained(Model(), STEPS, max_grad_norm=0.0)


def test_a_target_that_cannot_express_it_is_refused(tuned, tmp_path):
    with pytest.raises(ArtefactError) as refused:
        export(tuned(), "megatron", tmp_path / "out")
    said = str(refused.value)
    assert "megatron can't express it: tuned of the optimizer: weight_decay, b1, eps" in said
    assert "megatron can't express it: tuned of the optimizer: clip_norm" in said
    with pytest.raises(ArtefactError, match="torchtitan can't express it: .* clip_norm"):
        export(tuned(), "torchtitan", tmp_path / "out")


def test_rates_are_exported_for_their_optimizer_alone(tuned, tmp_path):
    lion = tuned(LION, {}, None)
    with pytest.raises(ArtefactError) as refused:
        export(lion, "torch", tmp_path / "out", lossy=True)
    assert str(refused.value) == (
        "export: optimizer.kind = 'lion': torch takes the rates of adamw, sgd alone; choose "
        "another target: json, csv, optax"
    )
    for exporter in EXPORTERS.values():
        assert set(exporter.optimizers) <= set(SETTINGS)
    soap = tuned({**ADAMW, "kind": "soap"}, {}, None)
    with pytest.raises(ArtefactError, match="'soap': optax takes .* another target: json, csv$"):
        export(soap, "optax", tmp_path / "out")
