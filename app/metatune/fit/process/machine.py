"""The machine that numbers were computed on: what decides how sums are rounded."""

import hashlib
import importlib.metadata
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

PACKAGES = ("metatune", "jax", "jaxlib", "flax", "optax", "numpy")
"""Whose versions may change the numbers."""

CPU_INFORMATION = Path("/proc/cpuinfo")
DETERMINISTIC = "--xla_gpu_deterministic_ops=true"
"""The XLA flag without which sums on a GPU are rounded differently each time."""


def packages() -> dict[str, str]:
    """The versions of `PACKAGES`."""
    return {name: importlib.metadata.version(name) for name in PACKAGES}


def machine() -> dict[str, Any]:
    """What programs are compiled for here, and by what; plain JSON values.

    The threads are those that XLA splits the work of a CPU over.
    """
    devices = jax.devices()
    cpu = _cpu()
    return {
        "system": platform.system(),
        "architecture": platform.machine(),
        "cpu": cpu.get("model name") or cpu.get("CPU part") or platform.processor(),
        "cpu_features_sha256": hashlib.sha256(
            " ".join(sorted((cpu.get("flags") or cpu.get("Features") or "").split())).encode()
        ).hexdigest(),
        "threads": _threads(),
        "backend": jax.default_backend(),
        "device": devices[0].device_kind,
        "devices": len(devices),
        **({"processes": jax.process_count()} if jax.process_count() > 1 else {}),
        "xla_flags": " ".join(sorted(os.environ.get("XLA_FLAGS", "").split())),
        "matmul_precision": jax.config.jax_default_matmul_precision,  # pyright: ignore[reportAttributeAccessIssue]
        "packages": packages(),
    }


def differences(recorded: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """What isn't the same of two machines, a line each; empty for machines of one type."""
    ours, theirs = _flat(recorded), _flat(here)
    return [
        f"{key}: {ours.get(key)!r} recorded, {theirs.get(key)!r} here"
        for key in dict.fromkeys([*ours, *theirs])
        if ours.get(key) != theirs.get(key)
    ]


def repeats_itself(machine: Mapping[str, Any]) -> bool:
    """Whether the same program gives the same bits on this machine each time."""
    return machine.get("backend") != "gpu" or DETERMINISTIC in str(machine.get("xla_flags")).split()


def _flat(machine: Mapping[str, Any]) -> dict[str, Any]:
    flat = {key: value for key, value in machine.items() if key != "packages"}
    return flat | dict(machine.get("packages", {}))


def _threads() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpu() -> dict[str, str]:
    """What Linux says of the first processor; empty elsewhere."""
    if not CPU_INFORMATION.is_file():
        return {}
    first = CPU_INFORMATION.read_text(encoding="utf-8", errors="replace").split("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}
