"""Reads the cluster files of docs/examples as their own tools do.

    python scripts/check_cluster_files.py [--jobset-crd jobset.x-k8s.io_jobsets.yaml]

The sbatch file: bash's parser, and each option one that `sbatch` has. The JobSet: the schema of its
own resource definition (config/components/crd/bases of kubernetes-sigs/jobset), with unknown fields
refused; needs `jsonschema`. The SkyPilot task: `sky.Task.from_yaml`; needs `skypilot`. What isn't
installed is said to be left out, and the exit code is then 1.
"""

import argparse
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"
OPTIONS = {
    "cpus-per-task": r"\d+",
    "gpus-per-node": r"(\w+:)?\d+",
    "job-name": r"\S+",
    "nodes": r"\d+(-\d+)?",
    "ntasks-per-node": r"\d+",
    "open-mode": r"append|truncate",
    "requeue": None,
    "signal": r"([RB]+:)?(\w+)(@\d+)?",
    "time": r"(\d+-)?\d+(:\d\d){0,2}",
}
"""Of sbatch (Slurm 24.11, sbatch(1)), those that are used here, and what they take."""


def main() -> None:
    """Prints a line for each file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--jobset-crd", type=Path, help="the definition of the resource")
    given = parser.parse_args()
    left_out = False
    checks: dict[str, Callable[[Path], str]] = {
        "metatune.sbatch": sbatch,
        "jobset.yaml": lambda path: jobset(path, given.jobset_crd),
        "skypilot.yaml": skypilot,
    }
    for name, check in checks.items():
        try:
            print(f"{name}: {check(EXAMPLES / name)}")
        except ImportError as error:
            left_out = True
            print(f"{name}: left out: {error}")
    raise SystemExit(int(left_out))


def sbatch(path: Path) -> str:
    """Parses a batch script, and looks at its options."""
    subprocess.run(["bash", "-n", str(path)], check=True)
    lines = path.read_text().splitlines()
    found = [line.removeprefix("#SBATCH --") for line in lines if line.startswith("#SBATCH ")]
    first_command = next(i for i, line in enumerate(lines) if line and not line.startswith("#"))
    if any(line.startswith("#SBATCH") for line in lines[first_command:]):
        raise ValueError("sbatch reads no options after the first command")
    for option in found:
        name, _, value = option.partition("=")
        if name not in OPTIONS:
            raise ValueError(f"--{name} is none of the options that are known here")
        allowed = OPTIONS[name]
        if not (value == "" if allowed is None else re.fullmatch(allowed, value)):
            raise ValueError(f"--{option}: must be of {allowed}")
    return f"bash parses it; {len(found)} options are sbatch's"


def jobset(path: Path, definition: Path | None) -> str:
    """Validates a JobSet by its resource definition."""
    import jsonschema  # pyright: ignore[reportMissingImports,reportMissingModuleSource]

    if definition is None:
        raise ImportError("give --jobset-crd")
    versions = yaml.safe_load(definition.read_text())["spec"]["versions"]
    document = yaml.safe_load(path.read_text())
    of = document["apiVersion"].rpartition("/")[2]
    (schema,) = (each["schema"]["openAPIV3Schema"] for each in versions if each["name"] == of)
    jsonschema.validate(document, _strict(schema))
    return f"valid by the schema of {document['apiVersion']}"


def _strict(schema: Any, within: bool = False) -> Any:
    """A schema that refuses unknown fields, as the API server does with strict validation."""
    if isinstance(schema, list):
        return [_strict(each, within) for each in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {
        key: {name: _strict(each) for name, each in value.items()}
        if key == "properties"
        else _strict(value)
        for key, value in schema.items()
    }
    # A number or a text, which the API's dialect says in its own way.
    if closed.pop("x-kubernetes-int-or-string", False):
        return {"anyOf": [{"type": "integer"}, {"type": "string"}]}
    if "properties" in closed and "additionalProperties" not in closed and within is False:
        names = set(closed["properties"])
        if names != {"metadata"} and closed["properties"].get("metadata") != {"type": "object"}:
            closed["additionalProperties"] = False
    return closed


def skypilot(path: Path) -> str:
    """Reads a task as SkyPilot does."""
    import sky  # pyright: ignore[reportMissingImports]

    task = sky.Task.from_yaml(str(path))
    subprocess.run(["bash", "-n", "-c", task.run], check=True)
    return f"SkyPilot {sky.__version__} reads it: {task.num_nodes} nodes, {task.resources}"


if __name__ == "__main__":
    main()
