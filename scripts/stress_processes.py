"""Kills, stops and damages searches and trainings, and looks at what is left of them.

    python scripts/stress_processes.py kill --count 200 --work /tmp/stress
    python scripts/stress_processes.py term --count 100 --work /tmp/stress
    python scripts/stress_processes.py damage --count 50 --work /tmp/stress

`kill`: SIGKILL at random moments, some of them inside a write, of `fit` with every estimator and of
`train`; each chain of them is resumed until it ends by itself, and its artefact or model has the
bytes of an uninterrupted one. `term`: SIGTERM; the exit code is 143, no child lives on, and what
goes on comes to the same bytes. `damage`: cuts and flips in checkpoints; what is resumed comes to
the same bytes, or is refused by name.

`--count` is of signals that met a running command (of damages, of files). What was done is in
`WORK/MODE.jsonl`, a line each, and isn't done again: it may be stopped.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

RECIPE = """
model:
  config: {model_type: llama, hidden_size: 16, intermediate_size: 32, num_hidden_layers: 1,
    num_attention_heads: 2}
data:
  domains: {d: {shipped: code_stdlib, max_tokens: 50000}}
  target: {d: 1}
  sequence_length: 16
  batch_size: 4
inner: {steps: 8, optimizer: {kind: adamw, learning_rate: 1e-3}}
tune: {learning_rates: {per: global, windows: 2}}
outer: {steps: 4, objective: {sequences: 8, micro_batch: 8}, validation: {seeds: 1, sequences: 8},
  test: {seeds: 1, sequences: 8}}
"""
COMMAND = """
import json, math, os, sys, time
given = json.load(sys.stdin)
time.sleep(0.3)
(factors,) = given["learning_rates"]["multipliers"]["groups"].values()
print(sum((math.log(factor) - 0.3) ** 2 for factor in factors) + given["seed"] % 7)
"""
FAULTY = """
import os, signal, sys
at, name = int(sys.argv.pop(1)), sys.argv.pop(1)
count = 0
def watched(real):
    def call(*arguments, **options):
        global count
        count += 1
        if count == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **options)
    return call
for one in ("replace", "rename", "fsync", "mkdir", "unlink"):
    setattr(os, one, watched(getattr(os, one)))
from metatune.cli import main
sys.argv = [name, *sys.argv[1:]]
main()
"""
"""Dies at the nth change of a file or folder."""
ESTIMATORS = ("mixflow", "reverse", "forward", "forward_gradient", "zeroth_order", "external")
WRITES = 60
"""Changes of files and folders of a short run, about."""
CHAIN = 6
"""Signals to a run, at most."""


class Subject:
    """A command to be ended, and what it comes to if it isn't."""

    def __init__(self, work: Path, name: str):
        """Makes its recipe; `name` is an estimator's, or `external`, or `train`."""
        self.name, self._work = name, work
        self._recipe, script = work / "recipe.yaml", work / "train.py"
        self._recipe.write_text(RECIPE)
        script.write_text(COMMAND)
        spec = f"{{kind: {name}}}"
        changes: list[str] = []
        if name == "external":
            spec = "{kind: zeroth_order, step: 0.1, directions: 1}"
            changes = [f"trainer={{command: [{sys.executable}, -S, {script}]}}"]
            changes += ["outer.objective={}"]
            changes += ["outer.validation={seeds: 1}", "outer.test={seeds: 1}"]
        elif name in ("forward_gradient", "zeroth_order"):
            spec = f"{{kind: {name}, directions: 2}}"
        self._words = (
            ["train", str(self._recipe), "inner.steps=64", "--checkpoint-every", "16"]
            if name == "train"
            else ["fit", str(self._recipe), f"outer.estimator={spec}", *changes]
        )
        self._left = work / f"{name}-whole"

    def words(self, out: Path) -> list[str]:
        """The command line, which goes on where there is something to go on with."""
        sign = "training.json" if self.name == "train" else "recipe.yaml"
        begun = (out / sign).exists()
        return [*self._words, "--out", str(out), *(["--resume"] if begun else [])]

    def bits(self, out: Path) -> bytes:
        """What it came to."""
        file = "model/model.safetensors" if self.name == "train" else "artefact/tuned.json"
        return (out / file).read_bytes()

    def whole(self) -> tuple[bytes, float]:
        """What it comes to uninterrupted, and the seconds that takes once it is compiled."""
        mark = self._left / "seconds"
        if not mark.exists():
            shutil.rmtree(self._left, ignore_errors=True)
            self.finish(self._left)
            shutil.rmtree(self._left)
            began = time.monotonic()
            self.finish(self._left)
            mark.write_text(str(time.monotonic() - began))
        return self.bits(self._left), float(mark.read_text())

    def finish(self, out: Path) -> str:
        """Runs it to its end; returns what it said."""
        done = subprocess.run(
            [*METATUNE, *self.words(out)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{self.name} ended with {done.returncode}:\n{done.stderr}")
        return done.stdout

    def begun(self, out: Path, log: Path, prefix: Sequence[str]) -> subprocess.Popen[bytes]:
        """Starts it."""
        with log.open("ab") as file:
            return subprocess.Popen(
                [*prefix, *self.words(out)], stdout=file, stderr=file, start_new_session=True
            )


METATUNE = (sys.executable, "-c", "from metatune.cli import main; main()")


def kill(subject: Subject, out: Path, draw: random.Random) -> tuple[int, str]:
    """A chain of kills, until what goes on has ended before the next of them."""
    bits, seconds = subject.whole()
    shutil.rmtree(out, ignore_errors=True)
    kills: list[str] = []
    while len(kills) < CHAIN:
        at = draw.randint(1, WRITES) if draw.random() < 0.4 else None
        prefix = METATUNE if at is None else [sys.executable, "-c", FAULTY, str(at), "metatune"]
        process = subject.begun(out, out.with_suffix(".log"), prefix)
        try:
            process.wait(None if at else draw.uniform(0.2, 1.0) * seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.returncode == 0:
            break
        if process.returncode != -signal.SIGKILL:
            raise RuntimeError(f"ended with {process.returncode} after {kills}")
        kills.append(f"write {at}" if at else "time")
    subject.finish(out)
    same(subject.bits(out), bits)
    return len(kills), ", ".join(kills)


def term(subject: Subject, out: Path, draw: random.Random) -> tuple[int, str]:
    """A chain of SIGTERMs, until what goes on has ended before the next of them."""
    bits, seconds = subject.whole()
    shutil.rmtree(out, ignore_errors=True)
    ends: list[str] = []
    while len(ends) < CHAIN:
        process = subject.begun(out, out.with_suffix(".log"), METATUNE)
        try:
            process.wait(draw.uniform(0.3, 1.0) * seconds)
            break
        except subprocess.TimeoutExpired:
            process.terminate()
        began = time.monotonic()
        code = process.wait(120)
        # A shell has 143 of one that the signal itself ends, too: after all was done.
        if code not in (143, -signal.SIGTERM, 0):
            raise RuntimeError(f"ended with {code} in the place of 143, after {ends}")
        if left := children(out):
            raise RuntimeError(f"left processes {left}")
        if code <= 0:
            break
        ends.append(f"took {time.monotonic() - began:.1f} s")
    subject.finish(out)
    same(subject.bits(out), bits)
    return len(ends), ", ".join(ends)


def damage(subject: Subject, out: Path, draw: random.Random) -> tuple[int, str]:
    """A cut or a flip in a checkpoint of what was stopped, then the end."""
    bits, seconds = subject.whole()
    shutil.rmtree(out, ignore_errors=True)
    process = subject.begun(out, out.with_suffix(".log"), METATUNE)
    wanted, deadline = 2, time.monotonic() + 3 * seconds + 60
    while process.poll() is None and time.monotonic() < deadline:
        if len([path for path in out.glob("checkpoints/*") if path.name.isdigit()]) >= wanted:
            break
        time.sleep(0.02)
    process.kill()
    process.wait()
    found = [path for path in out.glob("checkpoints/*/**/*") if path.is_file()]
    if not found:
        return 0, "nothing to damage"
    file = draw.choice(sorted(found))
    held = bytearray(file.read_bytes())
    how = draw.choice(["cut", "flip", "lose"])
    if how == "lose":
        file.unlink()
    elif how == "cut" or not held:
        file.write_bytes(held[: draw.randrange(len(held) + 1)])
    else:
        held[draw.randrange(len(held))] ^= 1 << draw.randrange(8)
        file.write_bytes(held)
    what = f"{how} of {file.relative_to(out)}"
    done = subprocess.run(
        [*METATUNE, *subject.words(out)], capture_output=True, text=True, check=False
    )
    if done.returncode == 2 and "no checkpoint is whole" in done.stderr:
        return 1, f"{what}: refused by name"
    if done.returncode or "Traceback" in done.stderr:
        raise RuntimeError(f"{what}: ended with {done.returncode}:\n{done.stderr}")
    same(subject.bits(out), bits)
    return 1, f"{what}: {'named' if 'is damaged' in done.stdout else 'in nobody s way'}"


def children(out: Path) -> list[int]:
    """Processes that say `out` or the trainer's script among their arguments."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                said = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if os.fsencode(out) in said or os.fsencode(out.parent / "train.py") in said:
                found.append(int(entry.name))
    return found


def same(found: bytes, wanted: bytes) -> None:
    """Refuses other bytes."""
    if found != wanted:
        raise RuntimeError("came to other bytes than the uninterrupted one")


MODES: dict[str, Callable[[Subject, Path, random.Random], tuple[int, str]]] = {
    "kill": kill,
    "term": term,
    "damage": damage,
}


def main() -> None:
    """Does what isn't done of a mode."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("mode", choices=MODES)
    parser.add_argument("--count", type=int, default=20, help="signals")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no more then")
    parser.add_argument("--work", type=Path, required=True, help="a folder for all of it")
    parser.add_argument("--only", nargs="*", default=[*ESTIMATORS, "train"], help="subjects")
    given = parser.parse_args()
    work: Path = given.work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(work / "compiled"))
    os.environ.setdefault("METATUNE_CACHE", str(work / "cache"))
    log, began, failed = work / f"{given.mode}.jsonl", time.monotonic(), 0
    lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    number, done = len(lines), sum(line["signals"] for line in lines)
    while done < given.count and time.monotonic() - began < given.seconds:
        name = given.only[number % len(given.only)]
        line: dict[str, object] = {"round": number, "subject": name}
        signals = 0
        try:
            subject = Subject(work, name)
            signals, line["how"] = MODES[given.mode](
                subject, work / f"{given.mode}-{name}", random.Random(number)
            )
        except (RuntimeError, subprocess.TimeoutExpired, OSError) as error:
            failed += 1
            line["failed"] = str(error)
        line["signals"] = signals
        with log.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(json.dumps(line), flush=True)
        number, done = number + 1, done + signals
    print(f"{given.mode}: {done} done, {failed} failed now; see {log}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    main()
