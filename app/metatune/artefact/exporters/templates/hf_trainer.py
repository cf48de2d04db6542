"""The Trainer of transformers with the tuned loss weights, and the tuned terms of the loss.

from metatune_schedules import Mixed, trainer_arguments
from metatune_trainer import TunedTrainer

mixed = Mixed(sources, total_steps, batch_size)
TunedTrainer(..., train_dataset=mixed, **trainer_arguments(model, total_steps)).train()
"""

from typing import Any

import torch
from metatune_schedules import (  # pyright: ignore[reportMissingImports]
    loss_terms,
    token_losses,
)
from transformers import Trainer

IGNORED = -100  # of a label: the token isn't predicted


class TunedTrainer(Trainer):
    """Multiplies the loss of each sequence by its `loss_weight`, where the batch holds one.

    In training, the loss of a token has the terms of `loss_terms` at that update. The loss of an
    update is the sum of the weighted losses of its tokens over their number.
    """

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """The loss of a batch of a causal language model; without weights and terms as ever.

        Raises:
            ValueError: several devices in one process.
        """
        now = (self.state.global_step, self.state.max_steps)
        termed = model.training and bool(loss_terms(*now))
        if "loss_weight" not in inputs and not termed:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        if self.args.n_gpu > 1:
            raise ValueError(
                f"{self.args.n_gpu} devices in one process: tuned losses need a process for each; "
                "start it by torchrun or accelerate launch"
            )
        inputs = dict(inputs)
        weights, labels = inputs.pop("loss_weight", None), inputs.pop("labels")[:, 1:]
        outputs = model(**inputs)
        logits = outputs.logits[:, :-1]
        if termed:
            losses = token_losses(logits, labels, *now)
        else:
            losses = torch.nn.functional.cross_entropy(
                logits.float().transpose(1, 2), labels, reduction="none", ignore_index=IGNORED
            )
        if weights is not None:
            losses = weights.to(losses.dtype)[:, None] * losses
        total = losses.sum()
        if num_items_in_batch is None:
            # The base class divides the mean by the number of accumulated batches.
            loss = total / (labels != IGNORED).sum()
        else:
            loss = total / num_items_in_batch
            if self.args.average_tokens_across_devices:
                # Gradients are averaged over processes, tokens were counted over all of them.
                loss = loss * (self.accelerator.num_processes // self.get_tp_size())
        return (loss, outputs) if return_outputs else loss
