#!/usr/bin/env python3
"""The side of bergson of `bench_bergson.py`, in an environment of its own, without metatune.

Reads from the folder that it is given the model (`model/`), and tokens (`given.safetensors`: of
inner steps [steps, batch, tokens], and held-out ones [batch, tokens]). Then answers each line of
its input with a line: seconds of a job, and how far the process grew over its start, in bytes. The
first job's hypergradient, of the weights of sequences, is written to the file that is named.

usage: bergson_peer.py FOLDER JOB GRADIENT --rate R --eps-root E
"""

# Of an environment that has other packages than metatune's.
# pyright: reportMissingImports=false

import argparse
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torchopt
from bench_peer import ANSWER, THREADS, peak_bytes, reset_peak, resident_bytes
from bergson.magic.cli import compute_query_gradients
from bergson.magic.data_stream import DataStream
from bergson.magic.trainer import BackwardState, Trainer
from bergson.utils import weighted_causal_lm_ce
from datasets import Dataset
from safetensors.torch import load_file, save_file
from torchopt.typing import GradientTransformation
from transformers import LlamaForCausalLM

JOBS = {"training": 1, "default": 1, "accumulated": 4}
"""Micro-batches of each."""


def adamw(rate: float, eps_root: float) -> GradientTransformation:
    """The optimizer, as bergson builds it; nothing decays."""
    return torchopt.adamw(
        lambda _: rate, betas=(0.9, 0.999), eps=1e-8, eps_root=eps_root, weight_decay=0.0
    )


def stream(tokens: torch.Tensor, batch: int) -> DataStream:
    """Sequences, [n, tokens], in batches."""
    return DataStream(Dataset.from_dict({"input_ids": tokens.tolist()}), batch)


def jobs(folder: Path, accumulate: int, rate: float, eps_root: float) -> dict[str, Callable]:
    """Plain training, and a hypergradient."""
    given = load_file(folder / "given.safetensors")
    inner, outer = given["inner"], given["outer"]
    rows = inner.flatten(0, 1)

    def begin() -> tuple[Trainer, Any, LlamaForCausalLM]:
        model = LlamaForCausalLM.from_pretrained(
            folder / "model", attn_implementation="eager", dtype=torch.float32
        ).eval()
        model.loss_function = weighted_causal_lm_ce  # with weights, as bergson sets it
        trainer, state = Trainer.initialize(model, adamw(rate, eps_root))
        return trainer, state, model

    def training() -> None:
        trainer, state, _ = begin()
        trainer.train(state, stream(rows, len(outer)), inplace=True, grad_accum_steps=accumulate)

    def hypergradient() -> torch.Tensor:
        trainer, state, model = begin()
        data = stream(rows, len(outer))
        with tempfile.TemporaryDirectory() as kept:
            state = trainer.train(
                state, data, inplace=True, save_dir=kept, grad_accum_steps=accumulate
            )
            queries, _ = compute_query_gradients(
                state, model, stream(outer, len(outer)), grad_accum_steps=accumulate
            )
            data.requires_grad = True
            floats = [
                torch.zeros_like(leaf)
                for leaf in torchopt.pytree.tree_leaves(state.opt_state)
                if isinstance(leaf, torch.Tensor) and leaf.is_floating_point()
            ]
            begun = BackwardState(queries, floats, torch.zeros_like(data.weights))
            found = trainer.backward(
                kept, data, begun, state, inplace=True, grad_accum_steps=accumulate
            )
        return found.weight_grads.detach().reshape(inner.shape[:2])

    return {"training": training, "hypergradient": hypergradient}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("job", choices=JOBS)
    parser.add_argument("gradient", type=Path)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--eps-root", type=float, required=True)
    given = parser.parse_args()
    torch.set_num_threads(THREADS)
    made = jobs(given.folder, JOBS[given.job], given.rate, given.eps_root)
    job = made["training" if given.job == "training" else "hypergradient"]
    answers = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):
        start = resident_bytes()
        found = job()
        if found is not None:
            save_file({"weights": found.contiguous()}, given.gradient)
        print(f"{ANSWER}null", file=answers, flush=True)
        for _ in sys.stdin:
            reset_peak()
            began = time.perf_counter()
            job()
            took = time.perf_counter() - began
            grown = peak_bytes() - start
            print(f"{ANSWER}{json.dumps([took, grown])}", file=answers, flush=True)


if __name__ == "__main__":
    main()
