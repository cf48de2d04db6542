#!/usr/bin/env python3
"""What groups of parameters cost an optimizer of PyTorch, and TunedTrainer a training of 135M.

A model with the shapes of SmolLM2-135M (272 tensors, random numbers). First the updates of AdamW,
`fused` and `foreach`, with a group for each tensor, with those merged (`metatune export --groups`),
and with a single one: the optimizers take turns, so that what else the machine does hits all alike.
Then steps of the Trainer of transformers, plain and tuned with merged groups, in turns too. Medians
over rounds, wall clock.

usage: bench_groups.py [--of updates|trainers] [--groups N] [--rounds R] [--tokens T] [--threads N]
"""

import argparse
import statistics
import sys
import tempfile
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import bench_export
import torch
import transformers

from metatune.artefact.exporters import export

STEPS = 1_000
"""Updates that the exported schedules are over."""


def model_of() -> torch.nn.Module:
    """Random numbers in the shapes of SmolLM2-135M."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        tie_word_embeddings=True,
        use_cache=False,
    )
    return transformers.LlamaForCausalLM(config)


def exported(folder: Path, groups: int | None, sizes: dict[str, int]) -> Path:
    """An export with so many groups; the path of its tuned.json."""
    made = bench_export.artefact(STEPS, 10)
    decayed = replace(made.optimizer, decayed=bench_export.NAMES)
    plain = replace(made, mixture=None, loss_weights=None, optimizer=decayed)
    export(plain, "hf-trainer", folder, groups=groups, sizes=sizes)
    return folder / "tuned.json"


def updates(model: torch.nn.Module, paths: dict[str, Path], rounds: int) -> None:
    """Prints the median update of each optimizer."""
    from metatune_schedules import Schedule, optimizer  # pyright: ignore[reportMissingImports]

    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter) * 1e-3
    for kind in ("fused", "foreach"):
        made = {n: optimizer(model, STEPS, path=path, **{kind: True}) for n, path in paths.items()}
        schedules = {n: Schedule(own, STEPS, path=paths[n]) for n, own in made.items()}
        seconds: dict[str, list[float]] = {name: [] for name in made}
        stepping: dict[str, list[float]] = {name: [] for name in made}
        for _ in range(rounds + 1):  # the first makes the moments
            for name, own in made.items():
                start = time.perf_counter()
                own.step()
                after = time.perf_counter()
                schedules[name].step()
                seconds[name].append(after - start)
                stepping[name].append(time.perf_counter() - after)
        least = statistics.median(seconds["one group"][1:])
        for name, own in made.items():
            median = statistics.median(seconds[name][1:])
            schedule = statistics.median(stepping[name][1:])
            print(
                f"{kind:<8}{name:<14}{len(own.param_groups):>4} groups "
                f"{1e3 * median:>8.1f} ms an update, {median / least:.3f} of one group; "
                f"Schedule.step {1e3 * schedule:.2f} ms",
                flush=True,
            )


class Rows(torch.utils.data.Dataset):
    """Sequences of one token."""

    def __init__(self, tokens: int):
        """Of so many tokens each."""
        self.row = {"input_ids": [5] * tokens, "labels": [5] * tokens}

    def __len__(self) -> int:
        """Enough of them."""
        return 10_000

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        """Always the same."""
        return self.row


class Timed(transformers.TrainerCallback):
    """Notes when each step of a Trainer ends."""

    def __init__(self) -> None:
        """Before the first."""
        self.ends: list[float] = []

    def on_step_end(self, *arguments: Any, **given: Any) -> None:
        """The end of a step."""
        self.ends.append(time.perf_counter())


def trainers(model: Any, path: Path, rounds: int, tokens: int) -> None:
    """Prints the median step of the plain and of the tuned Trainer."""
    from metatune_trainer import TunedTrainer  # pyright: ignore[reportMissingImports]

    seconds: dict[str, list[float]] = {"plain": [], "tuned": []}
    with tempfile.TemporaryDirectory() as scratch:
        for _ in range(rounds):
            for name in seconds:
                arguments = transformers.TrainingArguments(
                    output_dir=scratch,
                    max_steps=4,
                    per_device_train_batch_size=1,
                    report_to=[],
                    use_cpu=True,
                    disable_tqdm=True,
                    save_strategy="no",
                    logging_steps=1,
                )
                timed, data = Timed(), Rows(tokens)
                own: Any = {"model": model, "args": arguments, "train_dataset": data}
                own["callbacks"] = [timed]
                if name == "plain":
                    trainer = transformers.Trainer(**own)
                else:
                    trainer = TunedTrainer(**own, path=path)
                trainer.remove_callback(transformers.PrinterCallback)
                trainer.train()
                # The first step makes the moments.
                ends = timed.ends
                seconds[name] += [b - a for a, b in zip(ends, ends[1:], strict=False)]
    plain, tuned = (statistics.median(seconds[name]) for name in ("plain", "tuned"))
    print(
        f"Trainer {1e3 * plain:.0f} ms a step, tuned {1e3 * tuned:.0f} ms: "
        f"{100 * (tuned / plain - 1):+.1f} % (medians of {len(seconds['plain'])} each)"
    )


def main() -> None:
    """Measures both."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--groups", type=int, default=8, help="of those that are merged")
    parser.add_argument("--of", choices=("updates", "trainers"), help="of one of both alone")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tokens", type=int, default=64, help="of a step of the Trainer")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    model = model_of()
    sizes = {name: p.numel() for name, p in model.named_parameters()}
    with tempfile.TemporaryDirectory() as scratch:
        folders = {"each tensor": None, "merged": arguments.groups, "one group": 1}
        paths = {
            name: exported(Path(scratch) / name.split()[0], groups, sizes)
            for name, groups in folders.items()
        }
        sys.path.insert(0, str(Path(scratch) / "each"))
        if arguments.of != "trainers":
            updates(model, paths, arguments.rounds)
        for parameter in model.parameters():
            parameter.grad = None
        if arguments.of != "updates":
            trainers(model, paths["merged"], arguments.rounds, arguments.tokens)


if __name__ == "__main__":
    main()
