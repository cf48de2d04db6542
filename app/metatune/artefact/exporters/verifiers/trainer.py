"""Of metatune_trainer.py: three updates by the Trainer of transformers."""

import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import transformers

from metatune.artefact.exporters.verifiers import pytorch
from metatune.artefact.exporters.verifiers.expected import Expected
from metatune.artefact.exporters.verifiers.modules import groups_of, tiny

UPDATES = 3


class TinyLoss(torch.nn.Module):
    """Tiny parameters under the names of the checkpoint."""

    def __init__(self, expected: Expected):
        """Of the parameters that are expected."""
        super().__init__()
        self._modules.update(tiny(expected.rates, expected.matrices)._modules)

    def forward(self, x: torch.Tensor, labels: Any = None) -> dict[str, torch.Tensor]:
        """A loss that every parameter is a part of."""
        parts = torch.stack([p.sum() for p in self.parameters()])
        return {"loss": parts.sum() * x.float().mean()}


class ComparedUpdates(transformers.TrainerCallback):
    """Compares the rates of each update, and ends the training after some."""

    def __init__(self, expected: Expected, model: torch.nn.Module):
        """Of the model that is trained."""
        self.expected, self.model = expected, model

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """The rates that the update is made with."""
        if state.global_step in self.expected.at:
            for name, group in groups_of(self.model, given["optimizer"]).items():
                self.expected.agree_on_rate(name, state.global_step, group["lr"])

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Enough of them."""
        control.should_training_stop = state.global_step >= UPDATES


def verify(expected: Expected, folder: Path) -> list[str]:
    """What is verified of the export to PyTorch, and the rates in a Trainer's own updates."""
    lines = pytorch.verify(expected, folder)
    model = TinyLoss(expected)
    with tempfile.TemporaryDirectory() as scratch:
        arguments = transformers.TrainingArguments(
            output_dir=scratch,
            max_steps=expected.total,
            per_device_train_batch_size=1,
            max_grad_norm=expected.optimizer["clip_norm"] or 0.0,
            remove_unused_columns=False,
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
            save_strategy="no",
            logging_strategy="no",
        )
        import_module("metatune_trainer").TunedTrainer(
            model=model,
            args=arguments,
            train_dataset=[{"x": 1} for _ in range(4)],
            callbacks=[ComparedUpdates(expected, model)],
        ).train()
    done = min(UPDATES, expected.total)
    return [*lines, f"{done} updates by the Trainer of transformers {transformers.__version__}"]
