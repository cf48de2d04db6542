#!/usr/bin/env python3
"""Runs the README of each export literally, in a fresh environment with the version it names.

For each target an artefact of a tiny model is exported, a virtual environment gets the target from
the package index (what it needs besides is that of the interpreter that runs this), and the Python
of the README runs there between a few lines that stand for the user's own: a model, data. What
can't load on a machine without a GPU (torchvision) is stubbed.

usage: try_exports.py [--where FOLDER] [TARGET ...]
"""

import argparse
import re
import shutil
import site
import subprocess
import sys
import tempfile
import venv
from dataclasses import replace
from pathlib import Path

import numpy as np
from export_trials import TRIALS, Trial

from metatune.artefact import (
    Artefact,
    LearningRates,
    Mixture,
    Multipliers,
    Optimizer,
)
from metatune.artefact.exporters import export

WHERE = Path(tempfile.gettempdir()) / "metatune-exports"
STEPS, DOMAINS = 10, ("code", "drama")
ADAMW = {
    "kind": "adamw",
    "weight_decay": 0.1,
    "b1": 0.9,
    "b2": 0.95,
    "eps": 1e-8,
    "eps_root": 1e-12,
    "clip_norm": 1.0,
}


def artefact(names: tuple[str, ...]) -> Artefact:
    """A curve of its own for each parameter, over two windows, and shares that change once."""
    random, t = np.random.default_rng(0), np.arange(STEPS)
    base = 1e-2 * 0.5 * (1 + np.cos(np.pi * t / STEPS))
    factors = {name: tuple(random.uniform(0.3, 3, 2).tolist()) for name in names}
    curves = {name: base * np.repeat(factor, STEPS // 2) for name, factor in factors.items()}
    members = {name: (name,) for name in names}
    shares = np.array([[0.75, 0.25], [0.25, 0.75]])
    return Artefact(
        horizon_steps=STEPS,
        horizon_tokens=STEPS * 64,
        learning_rates=LearningRates(
            tuple((t / STEPS).tolist()),
            "constant",
            curves,
            Multipliers((0.0, 0.5), factors, members),
        ),
        mixture=Mixture((0.0, 0.5), "constant", DOMAINS, shares),
        loss_weights=None,
        optimizer=Optimizer(ADAMW, names[:1]),
        provenance={"domains": {n: {"documents": 200, "tokens": 1600} for n in DOMAINS}},
        result={},
    )


def environment(folder: Path, trial: Trial) -> Path:
    """A virtual environment with what a trial needs; its interpreter."""
    python = folder / "bin" / "python"
    if not python.is_file():
        venv.create(folder, with_pip=True)
        (own,) = folder.glob("lib/python*/site-packages")
        (own / "shared.pth").write_text("\n".join(shared()) + "\n")
        if trial.packages:
            command = [python, "-m", "pip", "install", "-q", "--no-deps", *trial.packages]
            subprocess.run(command, check=True)
        for name, text in trial.stubs.items():
            (own / name).parent.mkdir(parents=True, exist_ok=True)
            (own / name).write_text(text)
    return python


def shared() -> list[str]:
    """Where this interpreter finds packages: those of torch and the like aren't fetched again."""
    return [path for path in sys.path if "site-packages" in path] or site.getsitepackages()


def tried(target: str, trial: Trial, where: Path) -> str:
    """What came of one target."""
    folder = where / "exports" / target
    shutil.rmtree(folder, ignore_errors=True)
    tuned = artefact(trial.names)
    if trial.optimizer is not None:
        tuned = replace(tuned, optimizer=Optimizer(*trial.optimizer))
    for name, place in ((target.split()[0], folder), ("optax", folder / "optax")):
        if place == folder or trial.beside_optax:
            version = trial.version if place == folder else None
            export(tuned, name, place, lossy=True, sequences_per_step=8, target_version=version)
    text = (folder / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    if not blocks and not trial.after:
        return "no Python to run"
    ordered = blocks if trial.order is None else [blocks[place] for place in trial.order]
    code = "\n".join([f"STEPS = {STEPS}", trial.before, *ordered, trial.after])
    (folder / "tried.py").write_text(code, encoding="utf-8")
    python = environment(where / "environments" / target, trial)
    command = [python, "-W", "ignore", "tried.py"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        return "FAILED: " + (done.stderr.strip() or "?").splitlines()[-1]
    return f"ran, {len(blocks)} blocks" if blocks else "ran, its module alone"


def main() -> None:
    """Tries all, or some."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("targets", nargs="*", metavar="TARGET", default=list(TRIALS))
    parser.add_argument("--where", type=Path, default=WHERE)
    arguments = parser.parse_args()
    found = {}
    for target in arguments.targets:
        found[target] = tried(target, TRIALS[target], arguments.where.resolve())
        print(f"{target:<18}{found[target]}", flush=True)
    if any(said.startswith("FAILED") for said in found.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
