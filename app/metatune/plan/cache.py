"""What is known of compiled programs, kept between processes: a JSON file for each."""

import hashlib
import importlib.metadata
import json
import os
import platform
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import jax

from metatune.data.cache import cache_folder, unwritable

CPU_INFORMATION: Final = Path("/proc/cpuinfo")
VERSION: Final = 1
"""Of what an entry holds, and of how it is measured."""


def folder() -> Path:
    """Where entries lie: `$METATUNE_CACHE/plan`, by default ~/.cache/metatune/plan."""
    return cache_folder().parent / "plan"


def key_of(text: str) -> str:
    """The name of a program's entry: a hash of all that its bytes and seconds depend on.

    Args:
        text: the program, lowered.
    """
    device = jax.devices()[0]
    what = {
        "version": VERSION,
        "program": hashlib.sha256(text.encode()).hexdigest(),
        "device": [device.platform, device.device_kind, len(jax.devices())],
        "jax": [importlib.metadata.version(name) for name in ("jax", "jaxlib")],
        "xla_flags": sorted(os.environ.get("XLA_FLAGS", "").split()),
        "optimized": not jax.config.values["jax_disable_most_optimizations"],
        "processor": _processor(),
        "cores": cores(),
    }
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:32]


def cores() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def read(key: str) -> dict[str, Any]:
    """The entry of a program; empty where there is none, or none that can be read as one."""
    try:
        found = json.loads((folder() / f"{key}.json").read_text(encoding="utf-8"))
        found["temporary_bytes"] = int(found["temporary_bytes"])
        found["compilation_seconds"] = float(found["compilation_seconds"])
        for times in found.get("timings", {}).values():
            if not all(seconds > 0 for which in ("empty", "full") for seconds in times[which]):
                return {}
            if not 0 < int(times["steps"]) or len(times["empty"]) != len(times["full"]):
                return {}
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError, AttributeError):
        return {}
    return found


def write(key: str, entry: Mapping[str, Any]) -> None:
    """Keeps an entry in place of what was there: written aside, then renamed.

    Raises:
        CacheError: it can't be written.
    """
    home = folder()
    try:
        home.mkdir(parents=True, exist_ok=True)
        handle, aside = tempfile.mkstemp(prefix=f"{key}.", suffix=".unfinished", dir=home)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(entry, file)
            os.replace(aside, home / f"{key}.json")
        except BaseException:
            Path(aside).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise unwritable(home, error) from error


def _processor() -> str:
    """What a CPU calls itself; homes, and caches in them, may be shared by different machines."""
    if not CPU_INFORMATION.is_file():
        return platform.processor()
    lines = CPU_INFORMATION.read_text(errors="replace").splitlines()
    return next((line for line in lines if line.startswith(("model name", "CPU part"))), "")
