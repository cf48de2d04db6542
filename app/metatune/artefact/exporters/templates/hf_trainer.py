"""The Trainer of transformers with the tuned rates, data and losses.

    from metatune_trainer import TunedTrainer

    TunedTrainer(model=model, args=arguments, train_dataset=dataset).train()

For a Trainer of another library, put `Tuned` before it:

    class TunedSFTTrainer(Tuned, SFTTrainer):
        pass
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from metatune_schedules import (  # pyright: ignore[reportMissingImports]
    TUNED,
    Schedule,
    class_weights,
    clip_norm,
    clips_over_time,
    domain_weights,
    loss_terms,
    optimizer,
    token_losses,
    weighted_loss,
)
from transformers import Trainer, TrainerCallback

IGNORED = -100  # of a label: the token isn't predicted

OPTIMIZERS = ("adamw_torch", "adamw_torch_fused", "sgd")
"""Values of `optim` that name PyTorch's own; whether it is fused is all that is taken of them."""

Before = Trainer if TYPE_CHECKING else object


class Tuned(Before):
    """What makes a Trainer follow the tuned schedules.

    It makes the optimizer of the model that is trained, when that is ready (adapters added,
    sharded by FSDP), and its schedule over `max_steps`. The loss of each sequence is multiplied by
    its `loss_weight`, that of each token by the weight of its class, where the batch holds them; in
    training the loss of a token has the terms of `loss_terms` at that update. The loss of an
    update is the sum of the weighted losses of its tokens over their number. A clipping norm that
    moves over training is that of the update, whatever `max_grad_norm` above 0 the arguments have.
    """

    def __init__(
        self,
        *arguments: Any,
        checkpoint_name: Callable[[str], str] = str,
        path: Path = TUNED,
        mixed: Any = None,
        **options: Any,
    ):
        """Arguments of the Trainer, and those of `metatune_schedules.optimizer`.

        Args:
            *arguments: of the Trainer.
            checkpoint_name: gives the name in tuned.json of a parameter named otherwise.
            path: the tuned.json.
            mixed: the `Mixed` that `train_dataset` reads, where it isn't that itself.
            **options: of the Trainer.

        Raises:
            ValueError: numbers of the arguments that aren't those of the tuned training.
        """
        self._mixed = mixed
        self._tuned: dict[str, Any] = {"path": path, "checkpoint_name": checkpoint_name}
        for own in ("optimizers", "optimizer_cls_and_kwargs"):
            if options.get(own) not in (None, (None, None)):
                raise ValueError(f"{own}: leave it out, the tuned optimizer is made here")
        super().__init__(*arguments, **options)
        args, tuned = self.args, clip_norm(0, 1, path=path) or 0.0
        wrong = []
        if clips_over_time(path=path):
            self.add_callback(_MovingClip(self))
            if not args.max_grad_norm > 0:
                wrong.append(f"max_grad_norm {args.max_grad_norm}: must be above 0, {tuned} say")
            if self.is_deepspeed_enabled:
                wrong.append("DeepSpeed clips by one norm, and the tuned one moves over training")
        elif args.max_grad_norm != tuned:
            wrong.append(f"max_grad_norm {args.max_grad_norm}: the rates were tuned with {tuned}")
        if args.optim not in OPTIMIZERS:
            named = getattr(args.optim, "value", args.optim)
            wrong.append(f"optim {named}: leave it out, the tuned optimizer is made here")
        plugin = getattr(self.accelerator.state, "deepspeed_plugin", None)
        for block in ("optimizer", "scheduler"):
            if block in (getattr(plugin, "deepspeed_config", None) or {}):
                wrong.append(f"the `{block}` block of DeepSpeed's configuration: take it out")
        if args.label_smoothing_factor:
            wrong.append(f"label_smoothing_factor {args.label_smoothing_factor}: must be 0")
        if domain_weights(0, 1, path=path) and args.remove_unused_columns:
            wrong.append("remove_unused_columns: must be False, or loss weights are lost")
        if wrong:
            raise ValueError("; ".join(wrong))
        if class_weights(0, 1, path=path):
            self.model_accepts_loss_kwargs = True  # all tokens of an update are counted

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """The tuned optimizer of the model as it is now."""
        trained = self.model if model is None else model
        # As of the Trainer's own; it computes the same, faster.
        fused = {"fused": True} if self.args.optim == "adamw_torch_fused" else {}
        self.optimizer = optimizer(trained, max(1, self.args.max_steps), **fused, **self._tuned)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Schedule:
        """The tuned schedule over all updates of the training."""
        own = optimizer or self.optimizer
        schedule = Schedule(own, num_training_steps, path=self._tuned["path"])
        # A checkpoint of a training with another batch isn't resumed.
        schedule.must_agree(sequences_per_update=self.get_total_train_batch_size(self.args))
        self.lr_scheduler, self._created_lr_scheduler = schedule, True
        return schedule

    def get_train_dataloader(self) -> Any:
        """The loader of the training data, of which a `Mixed` must fit the arguments.

        Raises:
            ValueError: `Mixed` was made for another training.
        """
        for dataset in (self._mixed, self.train_dataset):
            if callable(getattr(dataset, "shared", None)):  # a `Mixed`, wherever that stands
                self._share(dataset)
        return super().get_train_dataloader()

    def _share(self, dataset: Any) -> None:
        args: Any = self.args
        per_update = self.get_total_train_batch_size(args)
        wrong = []
        if dataset.batch_size != per_update:
            wrong.append(
                f"batch_size {dataset.batch_size} of Mixed: an update has {per_update} sequences, "
                f"per_device_train_batch_size {args.per_device_train_batch_size} x "
                f"gradient_accumulation_steps {args.gradient_accumulation_steps} x "
                f"{per_update // (self._train_batch_size * args.gradient_accumulation_steps)} "
                "processes"
            )
        if dataset.total_steps != args.max_steps:
            wrong.append(f"total_steps {dataset.total_steps} of Mixed: max_steps {args.max_steps}")
        if args.ignore_data_skip:
            wrong.append("ignore_data_skip: must be False, or a resumed training begins anew")
        if args.accelerator_config.split_batches and args.world_size > 1:
            wrong.append("split_batches: must be False")
        if wrong:
            raise ValueError("; ".join(wrong))
        batch = self._train_batch_size
        if (
            args.accelerator_config.dispatch_batches is False
        ):  # each process reads the batches of all
            batch *= args.world_size
        dataset.shared(0, 1, batch)

    def update_at_hand(self) -> tuple[int, int]:
        """The update that is being made, 0 for the first, and how many the training has."""
        total, step = max(1, self.state.max_steps), self.state.global_step
        if isinstance(self.lr_scheduler, Schedule):
            step = self.lr_scheduler.last_epoch  # an update that a GradScaler skips isn't counted
        return min(step, total - 1), total  # an evaluation may come after the last

    def tuned_clip_norm(self) -> float:
        """The largest global norm of the gradient of that update."""
        return clip_norm(*self.update_at_hand(), path=self._tuned["path"]) or 0.0

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """The loss of a batch of a causal language model; without weights and terms as ever.

        Raises:
            ValueError: several devices in one process, or weights of classes without `classes`.
        """
        path, (step, total) = self._tuned["path"], self.update_at_hand()
        termed = model.training and bool(loss_terms(step, total, path=path))
        classed = bool(class_weights(step, total, path=path))
        if classed and "classes" not in inputs:
            raise ValueError("the batch has no `classes`: add the column, and let it be collated")
        if "loss_weight" not in inputs and not termed and not classed:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        if self.args.n_gpu > 1:
            raise ValueError(
                f"{self.args.n_gpu} devices in one process: tuned losses need a process for each; "
                "start it by torchrun or accelerate launch"
            )
        inputs, count = dict(inputs), num_items_in_batch
        weights, labels = inputs.pop("loss_weight", None), inputs.pop("labels")
        classes = inputs.pop("classes", None)
        outputs = model(**inputs)
        if classed:
            loss = weighted_loss(
                outputs.logits, labels, classes, step, total, tokens=count, path=path
            )
        else:
            labels, logits = labels[:, 1:], outputs.logits[:, :-1]
            if termed:
                losses = token_losses(logits, labels, step, total, path=path)
            else:
                losses = torch.nn.functional.cross_entropy(
                    logits.float().transpose(1, 2), labels, reduction="none", ignore_index=IGNORED
                )
            if weights is not None:
                losses = weights.to(losses.dtype)[:, None] * losses
            # Without a count the base class divides the mean by the accumulated batches.
            loss = losses.sum() / ((labels != IGNORED).sum() if count is None else count)
        if count is not None and self.args.average_tokens_across_devices:
            # Gradients are averaged over processes, tokens were counted over all of them.
            loss = loss * (self.accelerator.num_processes // self.get_tp_size())
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Logs, with the rate of every group where that of the first is logged."""
        if "learning_rate" in logs and isinstance(self.lr_scheduler, Schedule):
            logs |= {f"learning_rate/{name}": r for name, r in self.lr_scheduler.last_used.items()}
        super().log(logs, start_time)


class _MovingClip(TrainerCallback):
    """Gives the Trainer the norm of each update before it clips; at the end that of before."""

    def __init__(self, trainer: Tuned):
        self._trainer, self._before = trainer, trainer.args.max_grad_norm

    def on_step_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        args.max_grad_norm = self._trainer.tuned_clip_norm()

    def on_train_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        args.max_grad_norm = self._before


class TunedTrainer(Tuned, Trainer):
    """`transformers.Trainer` with the tuned schedules."""
