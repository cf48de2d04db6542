"""Keeps compiled programs between processes, so that a second run starts at once."""

import os
from pathlib import Path

import jax


def keep_compiled() -> None:
    """Points JAX's persistent compilation cache to the user's cache folder.

    A folder that the user has set (`JAX_COMPILATION_CACHE_DIR`) is left as it is.
    """
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(home / "metatune" / "compiled"))
