#!/usr/bin/env python3
"""Processor seconds that commands take which compute nothing, beside those of another build.

Each command in turn, of this checkout and of the other, each in a process of its own; medians. All
is warm: tokens are kept, modules compiled.

usage: bench_start.py [OTHER_CHECKOUT] [--rounds N]

The other checkout has a `.venv` that its metatune is installed in.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parents[1]
ARTEFACT = HERE / "tests" / "artefact" / "stored" / "mixture"
COMMANDS = {
    "--help": ["--help"],
    "ls": ["ls"],
    "validate quickstart": ["validate", "quickstart"],
    "show": ["show", str(ARTEFACT)],
    "export --to json": ["export", str(ARTEFACT), "--to", "json"],
    "export --to torch": ["export", str(ARTEFACT), "--to", "torch"],
}
MAIN = "from metatune.cli import main; main()"


def seconds(checkout: Path, arguments: list[str]) -> float:
    """Processor seconds of a command.

    Raises:
        SystemExit: it failed.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryDirectory() as folder:
        out = ["--out", str(Path(folder) / "out")] if "export" in arguments else []
        done = subprocess.run(
            [checkout / ".venv" / "bin" / "python", "-c", MAIN, *arguments, *out],
            cwd=checkout,
            env={key: said for key, said in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"},
            capture_output=True,
            text=True,
        )
    if done.returncode:
        sys.exit(f"{checkout}: {' '.join(arguments)}: {done.returncode}\n{done.stderr}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("other", nargs="?", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    builds = [HERE, *([given.other.resolve()] if given.other else [])]
    for name, arguments in COMMANDS.items():
        taken: dict[Path, list[float]] = {build: [] for build in builds}
        for number in range(1 + given.rounds):
            for build in builds:
                took = seconds(build, arguments)
                if number:  # the first compiles modules, and tokenizes
                    taken[build].append(took)
        medians = [statistics.median(taken[build]) for build in builds]
        line = f"{name:<22}" + "".join(f"{median:8.2f}" for median in medians)
        print(line + (f"  ratio {medians[0] / medians[1]:.2f}" if given.other else ""), flush=True)


if __name__ == "__main__":
    main()
