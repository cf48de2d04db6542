"""What JAX is told before it is imported, here and in the processes that tests start.

Which flags XLA has changes between releases, and an unknown one ends the process, so it is asked.
"""

import os
import subprocess
import sys
from pathlib import Path

ASK = "from jaxlib import xla_client; xla_client.CompileOptions()"  # reads them in 0.2 s
VENV = Path(__file__).parents[1] / ".venv"
# Tests compile thousands of small programs, in half the time without much of what makes them fast.
HASTY = [
    "--xla_backend_optimization_level=1",
    "--xla_cpu_use_fusion_emitters=false",
    "--xla_cpu_parallel_codegen_split_count=1",
]


def accepts(flags: list[str]) -> bool:
    """Whether a process with these flags lives to read them.

    Raises:
        RuntimeError: it ends for another reason.
    """
    done = subprocess.run(
        [sys.executable, "-c", ASK],
        env={**os.environ, "XLA_FLAGS": " ".join(flags)},
        capture_output=True,
        text=True,
    )
    if done.returncode and "in XLA_FLAGS" not in done.stderr:
        raise RuntimeError(f"jaxlib cannot be asked for its flags:\n{done.stderr}")
    return not done.returncode


def known(flags: list[str]) -> list[str]:
    """Those of `flags` that this jaxlib knows."""
    return flags if accepts(flags) else [flag for flag in flags if accepts([flag])]


os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(VENV / "jax-cache"))
os.environ.setdefault("METATUNE_CACHE", str(VENV / "cache"))
left_out = []
if "XLA_FLAGS" not in os.environ:
    flags = known(HASTY)
    left_out = [flag for flag in HASTY if flag not in flags]
    os.environ["XLA_FLAGS"] = " ".join(flags)
