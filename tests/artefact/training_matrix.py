"""Trains tiny models by an export to PyTorch or to the Trainer, in one of the ways that users do.

A script of test_matrix.py: FOLDER-OF-THE-EXPORT SCRATCH WAY,... [RANK PORT]. It prints the rates of
every parameter at every update, in the order of the model, and the sequences drawn, of each way.
"""

import json
import os
import sys
from contextlib import contextmanager
from typing import Any

import torch
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType
from metatune_mixture import Mixed  # pyright: ignore[reportMissingImports]
from metatune_schedules import Schedule, optimizer  # pyright: ignore[reportMissingImports]
from metatune_trainer import TunedTrainer  # pyright: ignore[reportMissingImports]
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.utils.data import DataLoader
from transformers import TrainerCallback, TrainingArguments

STEPS, BATCH, STOP = 8, 8, 3
DOMAINS = ("code", "drama")


class Block(nn.Module):
    """A layer with a norm, as an adapter leaves it or not."""

    def __init__(self, adapted: bool):
        super().__init__()
        if adapted:
            self.lora_A = nn.ModuleDict({"default": nn.Linear(3, 3, bias=False)})
            self.base_layer = nn.Linear(3, 3).requires_grad_(False)
        else:
            self.lora_A = nn.Linear(3, 3, bias=False)
        self.norm = nn.LayerNorm(3)

    def forward(self, x):
        own: Any = self.lora_A
        return self.norm(x + (own["default"] if isinstance(own, nn.ModuleDict) else own)(x))


class Model(nn.Module):
    """A loss of numbers."""

    def __init__(self, way: str):
        super().__init__()
        torch.manual_seed(0)
        block = Block(way == "adapted")
        if way == "checkpointed":
            block = checkpoint_wrapper(block)
        self.layers = nn.ModuleList([block])

    def forward(self, x, labels=None):
        return {"loss": (self.layers[0](x.float()[:, None].expand(-1, 3) / 100) ** 2).mean()}


def sources():
    return {name: [{"x": 100 * d + i} for i in range(37)] for d, name in enumerate(DOMAINS)}


def rates_of(model: nn.Module, own: Any, way: str) -> list[float]:
    assert all(isinstance(p, DTensor) == (way == "sharded") for p in model.parameters()), way
    by_id = {id(p): group["lr"] for group in own.param_groups for p in group["params"]}
    return [by_id[id(p)] for p in model.parameters() if p.requires_grad]


def by_torch(way: str, scratch: str, ranks: int) -> Any:
    """A loop of one's own."""
    micro = BATCH // ranks // (4 if way == "accumulated" else 1)
    rates, drawn, state = [], [], None
    parts = [(0, STOP), (STOP, STEPS)] if way == "resumed" else [(0, STEPS)]
    if way == "resumed elsewhere":
        parts = [(0, STOP)]
    elif way == "going on":
        parts, state = [(STOP, STEPS)], torch.load(f"{scratch}/torch.pt", weights_only=True)
    for start, end in parts:
        model: Any = Model(way)
        if way == "sharded":
            mesh = init_device_mesh("cpu", (ranks,))
            for part in (*model.layers, model):
                fully_shard(part, mesh=mesh)
        tuned = optimizer(model, STEPS)
        schedule = Schedule(tuned, STEPS)
        if state is not None:
            for own, held in zip((model, tuned, schedule), state, strict=True):
                own.load_state_dict(held)
        run = torch.compile(model, backend="eager") if way == "compiled" else model
        if ranks > 1 and way != "sharded":
            run = nn.parallel.DistributedDataParallel(model)
        loader = iter(DataLoader(Mixed(sources(), STEPS, BATCH, start_step=start), micro))
        for _ in range(start, end):
            rates.append(rates_of(model, tuned, way))
            own = []
            for _ in range(BATCH // ranks // micro):
                batch = next(loader)
                own += batch["x"].tolist()
                run(**batch)["loss"].backward()
                schedule.step()  # as a loop may that steps it for each micro-batch
            drawn.append(own)
            tuned.step()
            schedule.step()
            tuned.zero_grad()
        state = [own.state_dict() for own in (model, tuned, schedule)]
        if way == "resumed elsewhere":
            torch.save(state, f"{scratch}/torch.pt")
    return rates, drawn


@contextmanager
def sharding(way: str):
    """Has accelerate shard on CPUs, where it takes no notice of `fsdp` (1.15)."""
    own = AcceleratorState.__init__

    def init(self, *arguments, fsdp_plugin=None, **more):
        own(self, *arguments, fsdp_plugin=fsdp_plugin, **more)
        self.distributed_type, self.fsdp_plugin = DistributedType.FSDP, fsdp_plugin

    if way == "sharded":
        AcceleratorState.__init__ = init
    yield
    AcceleratorState.__init__ = own


def by_trainer(way: str, scratch: str, ranks: int) -> Any:
    """The Trainer of transformers."""
    rates, drawn = [], []
    net = Model(way)

    class Watch(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, **given):
            rates.append(rates_of(net, given["optimizer"], way))

        def on_step_end(self, args, state, control, **given):
            if "resumed" in way and len(rates) == STOP:
                control.should_save = control.should_training_stop = True

    class Watched(TunedTrainer):
        def compute_loss(self, model, inputs, *rest, **more):
            drawn.append(inputs["x"].tolist())
            return super().compute_loss(model, inputs, *rest, **more)

    accumulated = 4 if way == "accumulated" else 1
    shards: dict[str, Any] = {}
    if way == "sharded":
        config = {"version": 2, "cpu_ram_efficient_loading": False}
        shards = {"fsdp": True, "fsdp_config": config}
    arguments = TrainingArguments(
        output_dir=f"{scratch}/{'resumed elsewhere' if way == 'going on' else way}",
        max_steps=STEPS,
        per_device_train_batch_size=BATCH // ranks // accumulated,
        gradient_accumulation_steps=accumulated,
        max_grad_norm=1.0,
        torch_compile=way == "compiled",
        torch_compile_backend="eager" if way == "compiled" else None,
        ddp_find_unused_parameters=False if ranks > 1 else None,
        **shards,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        save_strategy="no",
        logging_strategy="no",
    )
    mixed = Mixed(sources(), STEPS, BATCH)
    with sharding(way):
        trainer = Watched(model=net, args=arguments, train_dataset=mixed, callbacks=[Watch()])
    checkpoint = f"{arguments.output_dir}/checkpoint-{STOP}"
    trainer.train(resume_from_checkpoint=checkpoint if way == "going on" else None)
    if way == "resumed":  # with the same objects
        trainer.train(resume_from_checkpoint=checkpoint)
    updates = [drawn[at : at + accumulated] for at in range(0, len(drawn), accumulated)]
    return rates, [[x for micro in update for x in micro] for update in updates]


def main() -> None:
    folder_of_scratch, ways, *ranked = sys.argv[1:]
    rank, ports = (ranked[0], ranked[1:]) if ranked else ("", [])
    torch.set_num_threads(1)
    if ranked:
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "ACCELERATE_USE_CPU": "true"}
        os.environ |= {"RANK": rank, "WORLD_SIZE": "2", "LOCAL_RANK": rank}
    found = {}
    for number, word in enumerate(ways.split(",")):
        target, way = word.split(":")
        if ranked:
            # One for each: a process that is ahead would still find the other's last meeting place.
            os.environ["MASTER_PORT"] = ports[number]
        if target == "torch" and ranked:
            torch.distributed.init_process_group("gloo")
        train = by_torch if target == "torch" else by_trainer
        found[word] = train(way, folder_of_scratch, 2 if ranked else 1)
        if ranked:
            torch.distributed.destroy_process_group()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
