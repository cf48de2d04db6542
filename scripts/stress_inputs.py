"""Mutates recipes and artefacts, and looks at how they are refused.

Each mutant of a small recipe goes through `metatune validate`, each of an artefact through
`metatune show`, in this process: both must end with exit code 0 or 2, without a traceback, within a
second of what an unspoilt one takes.

    python scripts/stress_inputs.py --artefact runs/quickstart/artefact

Exits with 1 if any doesn't.
"""

import argparse
import contextlib
import io
import json
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from metatune.cli import main
from metatune.recipe import shipped

SECONDS = 1.0
"""What a mutant may take longer than an unspoilt input."""

ODD: list[Any] = [
    *(None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, 10**18, -(10**18), 1e-300, 1e300),
    *("", "x", "é", "\u0000", "9" * 5000, "a.b", "[0]", "~", "../../..", "/dev/null", " "),
    *([], {}, [[]], [None], {"": None}, {"kind": "x"}, [1] * 1000, {"a": {"b": {"c": {}}}}),
    *(".inf", ".nan", "1e999", float("inf"), float("nan"), "0x10", "1_000"),
]


def nested(levels: int) -> Any:
    """Lists in each other."""
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def places(tree: Any, path: tuple = ()) -> list[tuple]:
    """Paths of all values of a tree."""
    pairs = tree.items() if isinstance(tree, dict) else None
    items = pairs or (enumerate(tree) if isinstance(tree, list) else ())
    found = [path] if path else []
    for key, value in items:
        found += places(value, (*path, key))
    return found


def mutated(tree: Any, draw: random.Random) -> Any:
    """A copy of a tree with one to three changes."""
    tree = json.loads(json.dumps(tree))
    for _ in range(draw.randint(1, 3)):
        found = places(tree)
        if not found:
            break
        *above, last = draw.choice(found)
        held = tree
        for key in above:
            held = held[key]
        way = draw.randrange(5)
        if way == 0:
            del held[last]
        elif way == 1 and isinstance(held, dict):
            held[draw.choice(["x", "kind", "", "windows", str(last) + "s"])] = held.pop(last)
        elif way == 2:
            held[last] = nested(draw.choice([3, 70, 400]))
        elif way == 3 and isinstance(held[last], int | float) and not isinstance(held[last], bool):
            held[last] *= draw.choice([-1, 0, 1e9, 10**15, 1e-9, 0.5])
        else:
            held[last] = draw.choice(ODD)
    return tree


def spoilt(text: str, draw: random.Random) -> str:
    """A text with characters taken out, put in or moved."""
    at = draw.randrange(len(text))
    way = draw.randrange(5)
    if way == 0:
        return text[:at]
    if way == 1:
        return text[:at] + draw.choice("{}[]:&*!|>'\"%@`#,\t\n\x00\u2028é") + text[at:]
    if way == 2:
        return text[:at] + text[at + draw.randint(1, 40) :]
    if way == 3:
        anchors = "".join(f"k{n}: &k{n} [{', '.join([f'*k{n - 1}'] * 9)}]\n" for n in range(1, 9))
        return f"k0: &k0 [1, 2]\n{anchors}{text}"
    return text[:at] + "9" * 6000 + text[at:]


def outcome(*arguments: str) -> tuple[Any, float, str]:
    """Exit code, seconds and output of a command; the error in place of a code where it raised."""
    said, began = io.StringIO(), time.perf_counter()
    code: Any = 0
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            main(arguments)
        except SystemExit as end:
            code = end.code or 0
        except BaseException as error:
            code = f"{type(error).__name__}: {str(error)[:200]}"
    return code, time.perf_counter() - began, said.getvalue()


def judge(name: str, codes: list[tuple[Any, float, str]], usual: float) -> int:
    """Prints what became of some mutants; returns how many ended wrongly."""
    wrong = 0
    for number, (code, seconds, _) in enumerate(codes):
        if code not in (0, 2) or seconds > usual + SECONDS:
            wrong += 1
            print(f"  {name} {number}: {code}, {seconds:.2f} s")
    refused = sum(code == 2 for code, _, _ in codes)
    slowest = max(seconds for _, seconds, _ in codes)
    print(
        f"{name}: {len(codes)} mutants, {refused} refused, {wrong} wrong, slowest {slowest:.2f} s "
        f"(an unspoilt one {usual:.2f} s)",
        flush=True,
    )
    return wrong


def main_() -> int:
    """Runs all; returns the exit code."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--recipes", type=int, default=500)
    options.add_argument("--artefacts", type=int, default=200)
    options.add_argument("--artefact", type=Path, help="the folder of one")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--keep", type=Path, help="where mutants that end wrongly are kept")
    chosen = options.parse_args()
    draw, wrong = random.Random(chosen.seed), 0
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "mutant.yaml"
        text = shipped.find("quickstart").read_text(encoding="utf-8")
        tree = yaml.safe_load(text)
        tree["inner"]["optimizer"]["learning_rate"] = 4e-3
        outcome("validate", str(shipped.find("quickstart")))
        usual = outcome("validate", str(shipped.find("quickstart")))[1]
        found = []
        for number in range(chosen.recipes):
            mutant = (
                json.dumps(mutated(tree, draw), ensure_ascii=False)  # is YAML, too
                if draw.random() < 0.7
                else spoilt(text, draw)
            )
            file.write_text(mutant, encoding="utf-8")
            found.append(outcome("validate", str(file)))
            if chosen.keep and (found[-1][0] not in (0, 2) or found[-1][1] > usual + SECONDS):
                chosen.keep.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, chosen.keep / f"recipe{number}.yaml")
        wrong += judge("recipes", found, usual)
        if chosen.artefact:
            content = (chosen.artefact / "tuned.json").read_text(encoding="utf-8")
            document, found = json.loads(content), []
            copy = Path(place) / "artefact"
            shutil.copytree(chosen.artefact, copy)
            usual = outcome("show", str(copy))[1]
            for number in range(chosen.artefacts):
                mutant = (
                    json.dumps(mutated(document, draw))
                    if draw.random() < 0.7
                    else spoilt(content, draw)
                )
                (copy / "tuned.json").write_text(resealed(mutant), encoding="utf-8")
                found.append(outcome("show", str(copy)))
                if chosen.keep and (found[-1][0] not in (0, 2) or found[-1][1] > usual + SECONDS):
                    chosen.keep.mkdir(parents=True, exist_ok=True)
                    shutil.copy(copy / "tuned.json", chosen.keep / f"tuned{number}.json")
            wrong += judge("artefacts", found, usual)
    return int(wrong > 0)


def resealed(text: str) -> str:
    """A tuned.json with a hash that fits it, as its author could write it; others as they are."""
    from metatune.artefact.writing import integrity

    try:
        document = json.loads(text)
        document["integrity"]["sha256"] = integrity(document)
        return json.dumps(document)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return text


if __name__ == "__main__":
    sys.exit(main_())
