"""What the tuned Trainer derives, what it compares, and what it refuses, in earnest."""

from types import SimpleNamespace

import numpy as np
import pytest

from metatune.artefact import Mixture
from metatune.artefact.exporters import export

pytestmark = pytest.mark.needs("accelerate", "torch")

STEPS, DOMAINS = 6, ("code", "drama", "é")


@pytest.fixture
def modules(make, tmp_path, load_module):
    """The modules of an export of a model of two parameters, `a` and `b`."""
    shares = np.array([[0.2, 0.5, 0.3], [0.8, 0.0, 0.2]])
    mixture = Mixture((0.0, 0.5), "linear", DOMAINS, shares)
    artefact = make(("a", "b"), STEPS, mixture=mixture, loss_weights=None)
    export(artefact, "hf-trainer", tmp_path / "tuned")
    trainer = load_module(tmp_path / "tuned", "metatune_trainer")
    import metatune_mixture  # pyright: ignore[reportMissingImports]

    return artefact, trainer, metatune_mixture


@pytest.fixture
def model():
    import torch

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.a = torch.nn.Parameter(torch.ones(2))
            self.b = torch.nn.Parameter(torch.ones(3))

        def forward(self, x, labels=None):
            return {"loss": (self.a.sum() + self.b.sum()) * x.float().mean()}

    return Model


@pytest.fixture
def made(modules, model, tmp_path):
    """A trainer; `of` is of `Mixed`, the other options are arguments of the training."""
    from transformers import TrainingArguments

    _, trainer, mixture = modules
    sources = {name: [{"x": 100 * d + i} for i in range(9)] for d, name in enumerate(DOMAINS)}

    def build(of=(STEPS, 8), net=None, data=None, options=None, **arguments):
        fixed = {
            "output_dir": str(tmp_path / "out"),
            "max_steps": STEPS,
            "per_device_train_batch_size": 4,
            "gradient_accumulation_steps": 2,
            "max_grad_norm": 1.0,
            "report_to": [],
            "use_cpu": True,
            "disable_tqdm": True,
            "save_steps": 2,
            "logging_steps": 1,
        }
        return trainer.TunedTrainer(
            model=model() if net is None else net,
            args=TrainingArguments(**{**fixed, **arguments}),
            train_dataset=data or mixture.Mixed(sources, *of),
            **(options or {}),
        )

    return build


def test_numbers_that_must_agree_are_compared(made, model):
    def refusal(**changes):
        with pytest.raises(ValueError) as refused:
            made(**changes).train()
        return str(refused.value)

    assert refusal(of=(STEPS, 24)) == (
        "batch_size 24 of Mixed: an update has 8 sequences, per_device_train_batch_size 4 x "
        "gradient_accumulation_steps 2 x 1 processes"
    )
    assert refusal(of=(5, 8)) == f"total_steps 5 of Mixed: max_steps {STEPS}"
    assert refusal(ignore_data_skip=True).startswith("ignore_data_skip: must be False")
    assert refusal(max_grad_norm=0.5) == "max_grad_norm 0.5: the rates were tuned with 1.0"
    net = model()
    net.config = None  # the Trainer itself asks for it there
    assert refusal(net=net, label_smoothing_factor=0.1) == "label_smoothing_factor 0.1: must be 0"
    assert refusal(optim="adafactor").startswith("optim adafactor: leave it out, the tuned optim")
    for own, given in (("optimizers", (1, None)), ("optimizer_cls_and_kwargs", (1, {}))):
        assert refusal(options={own: given}).startswith(f"{own}: leave it out, the tuned")


def test_the_schedule_is_over_the_updates_that_the_trainer_makes(made, modules):
    """Epochs of a data set with a length become updates; the curves stretch over these."""
    artefact = modules[0]
    rows = [{"x": i} for i in range(40)]
    trainer = made(data=rows, max_steps=-1, num_train_epochs=2)
    trainer.train()
    assert trainer.state.global_step == trainer.state.max_steps == 10
    for step, logs in enumerate(trainer.state.log_history[:-1]):
        for name in ("a", "b"):
            expected = artefact.learning_rate(name, step, 10)
            assert logs[f"learning_rate/{name}"] == pytest.approx(expected, rel=1e-12)


def test_a_resumed_training_goes_on_exactly_with_the_same_objects(made, tmp_path):
    def watched(trainer, seen):
        own = trainer.compute_loss

        def compute_loss(model, inputs, *rest, **more):
            seen.append(inputs["x"].tolist())
            return own(model, inputs, *rest, **more)

        trainer.compute_loss = compute_loss
        return trainer

    whole, seen = [], []
    watched(made(), whole).train()
    trainer = watched(made(), seen)
    trainer.train()
    assert seen == whole
    seen.clear()
    trainer.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-2"))
    assert seen == whole[4:]
    with pytest.raises(ValueError, match="sequences_per_update 4: the training that is resumed ha"):
        made(of=(STEPS, 4), gradient_accumulation_steps=1).train(
            resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-2")
        )
    with pytest.raises(ValueError, match="total_steps 12: the training that is resumed had 6"):
        made(of=(12, 8), max_steps=12).train(
            resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-2")
        )


def test_the_optimizer_is_of_the_model_that_is_trained(made, model):
    """A Trainer that wraps its model after it was made, as TRL's does with `peft_config=`."""
    import torch

    net = model()
    trainer = made(net=net)
    net.a = torch.nn.Parameter(torch.ones(2))  # as an adapter takes the place of a parameter
    net.b.requires_grad_(False)
    trainer.train()
    assert not torch.equal(net.a, torch.ones(2)) and torch.equal(net.b, torch.ones(3))
    trained = [p for g in trainer.optimizer.param_groups for p in g["params"]]
    assert len(trained) == 1 and trained[0] is net.a


@pytest.mark.parametrize("block", ["optimizer", "scheduler"])
def test_blocks_of_deepspeed_that_overwrite_rates_are_refused(made, modules, monkeypatch, block):
    """DeepSpeed 0.19.8 with a `scheduler` block set all rates of all updates to its own."""
    _, trainer, _ = modules

    def begun(self, model, args, train_dataset):
        plugin = SimpleNamespace(deepspeed_config={block: {}, "zero_optimization": {"stage": 1}})
        self.args, self.accelerator = (
            args,
            SimpleNamespace(state=SimpleNamespace(deepspeed_plugin=plugin)),
        )

    monkeypatch.setattr(trainer.Trainer, "__init__", begun)
    with pytest.raises(ValueError, match=f"the `{block}` block of DeepSpeed's .*: take it out"):
        made()


def test_the_schedule_finds_the_optimizer_within_deepspeed_s(modules, model):
    """As of ZeRO, which holds an optimizer and is none, within accelerate's wrapper."""
    import torch
    from accelerate.optimizer import AcceleratedOptimizer

    artefact, _, _ = modules
    import metatune_schedules  # pyright: ignore[reportMissingImports]

    net = model()
    own = metatune_schedules.optimizer(net, STEPS)
    wrapper = AcceleratedOptimizer.__new__(AcceleratedOptimizer)
    wrapper.optimizer = SimpleNamespace(optimizer=own)
    schedule = metatune_schedules.Schedule(wrapper, STEPS)
    for step in range(STEPS):
        for group in own.param_groups:
            assert group["lr"] == artefact.learning_rates.parameters[group["curve"]][step]
        for p in net.parameters():
            p.grad = torch.zeros_like(p)
        own.step()
        schedule.step()
